"""What accounts need, as data and as SQL, and what of a look at a cluster speaks for missing privileges."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crdbexport.cluster.dialects.documented import DocumentedDialect
from crdbexport.cluster.dialects.native import NativeDialect
from crdbexport.cluster.dialects.native_by_id import NativeByIdDialect
from crdbexport.cluster.dialects.wire_native import DatabaseMetadata
from crdbexport.cluster.model import EVERYTHING, Database, DatabaseDetails, Grant, Table, TableDetails
from crdbexport.cluster.privileges import DOCUMENTED, NATIVE_BY_ID, NATIVE_BY_NAME, Privileges, identifier
from crdbexport.cluster.reads import DatabaseRead, TableRead
from crdbexport.cluster.sight import Sight
from crdbexport.errors import UnreadableError

README = Path(__file__).parents[2] / "README.md"
FORMS = (DOCUMENTED, NATIVE_BY_NAME, NATIVE_BY_ID)
USERS = [Table("bank", "public", "users")]
ROOT = [Grant("root", "ALL")]


def code(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("--")]


def test_readme_holds_the_very_statements() -> None:
    section = README.read_text().split("\n## A role for crdbexport\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    told = ["".join(f"{line}\n" for line in form.statements("exporter", ["bank"], details=True)) for form in FORMS]
    assert [block for block in blocks if "GRANT" in block] == told


def test_each_dialect_names_what_its_servers_ask_for() -> None:
    dialects = (DocumentedDialect(), NativeDialect(), NativeByIdDialect(None, {}))
    assert tuple(dialect.privileges for dialect in dialects) == FORMS
    assert len(set(FORMS)) == 3


def test_the_documented_form_asks_for_admin_whatever_is_exported() -> None:
    for details in (True, False):
        assert code(DOCUMENTED.statements("exporter", ["a", "b", "c", "d"], details=details)) == [
            'GRANT admin TO "exporter";'
        ]


@pytest.mark.parametrize("form", [NATIVE_BY_NAME, NATIVE_BY_ID])
def test_who_needs_no_details_is_given_no_way_to_rows(form: Privileges) -> None:
    assert code(form.statements("exporter", ["bank"], details=False)) == [
        'GRANT CONNECT ON DATABASE "bank" TO "exporter";'
    ]
    assert "SELECT" in "".join(form.statements("exporter", ["bank"], details=True))


def test_default_privileges_are_changed_in_the_database_that_they_are_for() -> None:
    lines = NATIVE_BY_ID.statements("exporter", ["a", "b"], details=True)
    assert [line.split("; ")[0] for line in lines if "DEFAULT PRIVILEGES" in line] == ['USE "a"', 'USE "b"']


def test_names_are_identifiers_whatever_they_hold() -> None:
    lines = code(NATIVE_BY_NAME.statements('o"; DROP', ["{account}"], details=False))
    assert lines == ['GRANT CONNECT ON DATABASE "{account}" TO "o""; DROP";']
    assert identifier("Größe 1") == '"Größe 1"'


def test_a_few_databases_are_named_and_the_others_counted() -> None:
    lines = NATIVE_BY_ID.statements("exporter", ["a", "b\n", "c", "d", "e"], details=False)
    assert code(lines) == [f'GRANT CONNECT ON DATABASE "{name}" TO "exporter";' for name in "acd"]
    assert lines[-1] == "-- and the same in 2 more"


@pytest.mark.parametrize("databases", [[], ["\x1b[2J"]])
def test_where_no_database_can_be_named_its_place_is_kept(databases: list[str]) -> None:
    lines = NATIVE_BY_NAME.statements("exporter", databases, details=False)
    assert code(lines) == ['GRANT CONNECT ON DATABASE "your_database" TO "exporter";']
    assert lines[-1].startswith("-- your_database stands for ")


def sight(form: Privileges = NATIVE_BY_NAME, **parts: Any) -> Sight:
    return Sight(form, msgspec.structs.replace(EVERYTHING, **parts))


def a_read(name: str = "bank", *, tables: Any = USERS, grants: Any = ROOT, count: int | None = None) -> DatabaseRead:
    return DatabaseRead(Database(name), DatabaseDetails(table_count=count), grants, tables)


def refused(reason: str) -> UnreadableError:
    return UnreadableError("GET somewhere was refused", reason=reason, http_status=500)


def test_nothing_lacks_where_everything_was_read() -> None:
    seen = sight()
    seen.note(a_read(), TableRead(USERS[0], TableDetails()))
    assert (seen.lacking, seen.databases) == ([], ["bank"])
    assert seen.asked == seen.read == {"tables": 1, "grants": 1, "details": 1}


@pytest.mark.parametrize(
    ("name", "count", "suspicious"),
    [("bank", None, True), ("bank", 0, False), ("bank", 3, True), ("postgres", None, False), ("postgres", 1, True)],
)
def test_an_empty_list_is_suspicious_unless_the_server_counts_none(
    name: str, count: int | None, suspicious: bool
) -> None:
    seen = sight()
    seen.note(a_read(name, tables=[], count=count), None)
    assert seen.without_tables == ([name] if suspicious else [])


def test_every_database_has_grants() -> None:
    seen = sight()
    seen.note(a_read("postgres", tables=[], grants=[]), None)
    assert seen.without_grants == seen.lacking == ["postgres"]


def test_what_was_not_asked_for_does_not_lack() -> None:
    seen = sight(tables=False, database_grants=False, table_details=False)
    seen.note(a_read(tables=None, grants=None), None)
    assert (seen.lacking, seen.asked.total()) == ([], 0)


@pytest.mark.parametrize(
    ("form", "reason", "lacks"),
    [
        (NATIVE_BY_NAME, "server_error", True),
        (NATIVE_BY_ID, "server_error", True),
        (NATIVE_BY_ID, "view", False),
        (NATIVE_BY_NAME, "unaddressable", False),
        (DOCUMENTED, "forbidden", True),
        (DOCUMENTED, "server_error", False),
    ],
)
def test_refused_details_speak_for_missing_privileges_where_servers_refuse_so(
    form: Privileges, reason: str, lacks: bool
) -> None:
    seen = sight(form)
    seen.note(a_read(), TableRead(USERS[0], refused(reason)))
    assert seen.lacking == (["bank"] if lacks else [])
    assert (seen.asked["details"], seen.read["details"]) == (1, 0)


def test_select_is_not_asked_for_where_only_grants_are_exported() -> None:
    seen = sight(NATIVE_BY_ID, table_columns=False)
    seen.note(a_read(), TableRead(USERS[0], refused("server_error")))
    assert (seen.details_needed, seen.lacking) == (False, [])


@pytest.mark.parametrize("part", ["tables", "grants"])
def test_a_forbidden_list_speaks_for_missing_privileges_and_a_failed_one_does_not(part: str) -> None:
    seen = sight(DOCUMENTED)
    seen.note(a_read("a", **{part: refused("forbidden")}), None)
    seen.note(a_read("b", **{part: refused("server_error")}), None)
    assert (seen.lacking, seen.asked[part], seen.read[part]) == (["a"], 2, 0)


def test_databases_that_the_metadata_leave_out_lack_connect() -> None:
    seen = sight(NATIVE_BY_ID)
    seen.note(a_read("a"), None)
    seen.note(a_read("b"), None)
    assert seen.without_metadata == []
    seen.metadata = {name: DatabaseMetadata(1, name) for name in ("a", "system")}
    assert seen.without_metadata == seen.lacking == ["b"]
    seen.metadata = refused("unaddressable")
    assert seen.without_metadata == []
