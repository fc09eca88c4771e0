"""What a run has to publish, from what the cluster told it: written without the code that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tests.proof.living import Answers

Records = dict[str, set[tuple[Any, ...]]]
Gaps = dict[tuple[str, str, str | None], str]
"""Reasons by database, part and table."""

REASONS = {403: "forbidden", 404: "not_found"}
STREAMS = ("databases", "database_grants", "tables", "columns", "indexes", "table_grants")
FIELDS = {
    "databases": ("database_name", "database_id", "size_bytes", "table_count", "details"),
    "database_grants": ("database_name", "grantee", "privilege_type"),
    "tables": ("database_name", "schema_name", "table_name", "table_id", "size_bytes", "range_count", "details"),
    "columns": ("database_name", "table_name", "column_name", "ordinal_position", "data_type", "is_nullable"),
    "indexes": ("database_name", "table_name", "index_name", "is_unique"),
    "table_grants": ("database_name", "table_name", "grantee", "privilege_type"),
}


class Expectation:
    """The records and gaps of a run. `unanswered` tells the reasons of parts that the cluster never answered."""

    def __init__(self, answers: Answers, unanswered: Gaps) -> None:
        self.records: Records = {stream: set() for stream in STREAMS}
        self.gaps: Gaps = {}
        self._answers, self._unanswered = answers, unanswered
        for listed in self._asked("databases")["databases"]:
            self._expect_database(listed["name"], int(listed["id"]))

    def _asked(self, *segments: str) -> Any:
        status, document = self._answers.get(_path(*segments), (0, None))
        return document if status == 200 else None

    def _reason(self, part: str, database: str, table: str | None, *segments: str) -> str:
        status, _ = self._answers.get(_path(*segments), (0, None))
        where = (database, part, table)
        # A reply that tells of another object of the same name is not taken for the one that was asked for.
        reason = "ambiguous" if status == 200 else REASONS.get(status) or self._unanswered[where]
        self.gaps[where] = reason
        return reason

    def _expect_database(self, name: str, number: int) -> None:
        details = self._asked("databases", name)
        if details and int(details["descriptor_id"]) == number:
            row = (name, number, details["size_bytes"], details["table_count"], "fetched")
        else:
            row = (name, number, None, None, self._reason("details", name, None, "databases", name))
        self.records["databases"].add(row)
        self.records["database_grants"] |= {(name, *each) for each in self._grants(name)}
        tables = self._asked("databases", name, "tables")
        if tables is None:
            self._reason("tables", name, None, "databases", name, "tables")
        for listed in (tables or {"tables": []})["tables"]:
            self._expect_table(name, listed)

    def _grants(self, database: str) -> Iterator[tuple[str, str]]:
        told = self._asked("databases", database, "grants")
        if told is None:
            self._reason("grants", database, None, "databases", database, "grants")
            return iter(())
        return _privileges(told["grants"])

    def _expect_table(self, database: str, listed: dict[str, Any]) -> None:
        name, number = listed["name"], int(listed["table_id"])
        path = ("databases", database, "tables", name)
        details = self._asked(*path)
        if not details or int(details["table_id"]) != number:
            reason = self._reason("details", database, name, *path)
            row = (database, "public", name, number, listed["size_bytes"], None, reason)
            self.records["tables"].add(row)
            return
        told = (details["size_bytes"], details["range_count"])
        self.records["tables"].add((database, "public", name, number, *told, "fetched"))
        for position, column in enumerate(details["columns"], 1):
            row = (database, name, column["name"], position, column["type"], column["nullable"])
            self.records["columns"].add(row)
        self.records["indexes"] |= {(database, name, each["name"], each["unique"]) for each in details["indexes"]}
        self.records["table_grants"] |= {(database, name, *each) for each in _privileges(details["grants"])}


def _path(*segments: str) -> str:
    return "/api/v2/" + "/".join(quote(each, safe="") for each in segments)


def _privileges(grants: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((each["user"], privilege) for each in grants for privilege in each["privileges"])
