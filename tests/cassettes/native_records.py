"""What scenarios of the native form have of their own, and what an export has to tell of one.

That is computed from the world itself, by what each generation tells, without regard to how crdbexport asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from scenarios import Scenario

from crdbexport.records import STREAMS, Part
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Faults
from crdbexport.sandbox.layout import SYSTEM
from crdbexport.sandbox.native import Generation, NativeSandbox, Quirks
from crdbexport.sandbox.native.quirks import NONE
from crdbexport.sandbox.objects import Grant, ListedTable, TableDetails

Row = tuple[Any, ...]

TABLE = ("database_name", "schema_name", "table_name")
MEASURES = ("table_id", "kind", "size_bytes", "live_bytes", "replicated_bytes", "range_count", "replica_count")
CHOSEN = {
    "databases": ("database_name", "database_id", "replicated_bytes", "table_count", "details"),
    "database_grants": ("database_name", "grantee", "privilege_type"),
    "tables": (*TABLE, *MEASURES, "details"),
    "columns": (*TABLE, "column_name", "ordinal_position", "data_type", "is_nullable", "is_hidden"),
    "indexes": (*TABLE, "index_name", "is_unique", "column_names", "directions", "stored_columns"),
    "table_grants": (*TABLE, "grantee", "privilege_type"),
}
# What fails like this is looked at once more, and told after everything else.
TOLD_LAST = frozenset({"server_error", "view"})

NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)


@dataclass(frozen=True)
class NativeScenario(Scenario):
    """A simulated cluster that answers as real servers of a generation do.

    `cached` is what the metadata endpoints tell: the databases' `ids`, and measures of `databases` and of `tables`.
    `gone` names databases that are listed and then not there. `untold` is missing from the answers without a word: a
    stream and the database, or the database, schema and table.
    """

    form: ClassVar[str] = "native"

    generation: Generation = "v25"
    quirks: Quirks = NONE
    cached: frozenset[str] = frozenset({"ids", "databases", "tables"})
    gone: tuple[str, ...] = ()
    untold: frozenset[tuple[str, ...]] = frozenset()

    @property
    def against(self) -> str:
        return f"{super().against} in its native form, generation {self.generation}"

    def cluster(self, faults: Faults, *, username: str, password: str) -> ClusterApp:
        """The cluster at a fixed time."""
        return NativeSandbox(
            self.world,
            generation=self.generation,
            username=username,
            password=password,
            faults=faults,
            quirks=self.quirks,
            clock=lambda: NOW,
        )

    def rows(self) -> dict[str, list[Row]]:
        """The chosen fields of the records of each stream, in the order in which they are published."""
        rows: dict[str, list[Row]] = {stream: [] for stream in STREAMS}
        for stream, row in _Told(self).rows() if self.dialect else ():
            rows[stream].append(row)
        rows["tables"].sort(key=lambda row: row[-1] in TOLD_LAST)
        return rows

    def records(self) -> dict[str, int]:
        """How many records each stream has."""
        return {stream: len(rows) for stream, rows in self.rows().items()}


class _Told:
    def __init__(self, scenario: NativeScenario) -> None:
        self._scenario = scenario
        self._world = scenario.world
        self._cached = scenario.cached if scenario.generation == "v25" else frozenset()
        self._reasons = {(gap.part, gap.database, gap.schema, gap.table): gap.reason for gap in scenario.expected.gaps}

    def rows(self) -> Iterator[tuple[str, Row]]:
        scenario = self._scenario
        for database in sorted({*self._world.database_names(), *scenario.gone} - {SYSTEM}):
            if (not scenario.database or database in scenario.database) and self._holds("databases", database):
                yield from self._database(database)

    def _holds(self, stream: str, *names: str) -> bool:
        return (stream, *names) not in self._scenario.untold

    def _reason(self, part: Part, database: str, schema: str | None = None, table: str | None = None) -> str | None:
        return self._reasons.get((part, database, schema, table))

    def _database(self, database: str) -> Iterator[tuple[str, Row]]:
        reason, known = self._reason("details", database), self._world.database(database)
        database_id = known.id if known and (reason is None or "ids" in self._cached) else None
        measured = known is not None and known.table_count > 0 and "databases" in self._cached
        replicated = self._world.replicated_bytes(database) if measured else None
        count = known.table_count if known and measured else None
        yield "databases", (database, database_id, replicated, count, reason or "fetched")
        if self._reason("grants", database) is None and self._holds("database_grants", database):
            yield from _grants("database_grants", (database,), self._world.database_grants(database))
        for listed in self._listed(database):
            details = self._world.table_in(database, listed.schema_name, listed.name)
            assert details is not None
            yield from self._table(details)

    def _listed(self, database: str) -> list[ListedTable]:
        """Where no list can be had, only the cache tells of tables, and of no views."""
        tables = [each for each in self._world.tables(database) if self._holds("tables", database, *_names(each))]
        if self._reason("tables", database) == "unaddressable":
            tables = [each for each in tables if each.kind == "table" and "tables" in self._cached]
        return sorted(tables, key=_names)

    def _table(self, table: TableDetails) -> Iterator[tuple[str, Row]]:
        key = (table.database_name, table.schema_name, table.table_name)
        reason = self._reason("details", *key)
        cached = "tables" in self._cached and table.kind == "table"
        measures = _cached(table) if cached else _fetched(table) if reason is None else (None,) * len(MEASURES)
        yield "tables", (*key, *measures, reason or "fetched")
        if reason is None:
            yield from _columns(key, table)
            yield from (_indexes(key, table) if self._holds("indexes", *key) else ())
        if (reason is None or (cached and reason == "unaddressable")) and self._holds("table_grants", *key):
            yield from _grants("table_grants", key, table.grants)


def _names(listed: ListedTable) -> tuple[str, str]:
    return listed.schema_name, listed.name


def _cached(table: TableDetails) -> Row:
    stored = (table.size_bytes, table.live_bytes, table.replicated_bytes)
    return (table.table_id, "table", *stored, table.range_count, table.replica_count)


def _fetched(table: TableDetails) -> Row:
    """Zeros are left out of details, as is what an old server does not know."""
    return (table.table_id, None, table.size_bytes or None, table.live_bytes or None, None, table.range_count, None)


def _columns(key: Row, table: TableDetails) -> Iterator[tuple[str, Row]]:
    for position, each in enumerate(table.columns, start=1):
        yield "columns", (*key, each.name, position, each.type, each.nullable, each.hidden)


def _indexes(key: Row, table: TableDetails) -> Iterator[tuple[str, Row]]:
    """By name; the primary one stores all that is not in its key."""
    primary = table.indexes[0]
    rest = [each.name for each in table.columns if each.name not in primary.columns]
    for each in sorted(table.indexes, key=lambda index: index.name):
        stored = rest if each is primary else list(each.stored)
        yield "indexes", (*key, each.name, each.unique, list(each.columns), list(each.directions), stored)


def _grants(stream: str, key: Row, grants: tuple[Grant, ...]) -> Iterator[tuple[str, Row]]:
    for grant in grants:
        yield from ((stream, (*key, grant.user, privilege)) for privilege in grant.privileges)
