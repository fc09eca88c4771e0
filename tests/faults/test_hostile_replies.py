"""Names and numbers chosen by an enemy: they arrive as they are, lead nowhere, and reach no terminal."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from tests.faults.behaviours import refuses, said_twice
from tests.faults.conftest import Export
from tests.faults.fault_server import FaultServer, Rule
from tests.faults.promises import assert_nothing_lost_but, assert_published_as_reported, assert_secrets_kept
from tests.faults.small_world import TABLES, documented, documented_database, documented_table, on_the_wire
from tests.faults.suffered import Suffered

NAMES = (
    "a\0b", "a", "..a", "a/../../b", "/etc/passwd", "a\\b", "c:\\x", "%2e%2e", "%00", "%", "a%2Fb", "?x=1", "#x", ";x",
    "a=b", "A", "é", unicodedata.normalize("NFD", "é"), "CON", "nul.txt", "x.", " ", " x ", "-rf", "_manifests",
    "_staging", "date=1", "__HIVE_DEFAULT_PARTITION__", "x" * 255, "é" * 127, "🚀" * 84, "\x1b[2J\x1b]0;x\x07",
    "\u2028\u2029", "\u202etxt.exe", "line\nbreak\r\n", "\x7f\x9b31m", "=cmd()", "{0}%s${x}{{y}}", "';DROP TABLE x;--",
    '"', "NULL", "null", "1", "0x1", "true", "\ufeff", "\ufffe\uffff", "\u200b", "\U0010ffff", "tables", "grants",
)  # fmt: skip
# No URL can name these: a path drops its dots, and a URL has an end.
UNADDRESSABLE = ("", ".", "..", "y" * 70_000)
# What would move a cursor, turn a line around, or end it.
UNSHOWABLE = ("\x1b", "\0", "\u202e", "\u2028", "\x9b", "\x07", "\u200b")


def databases(names: tuple[str, ...]) -> dict[str, Any]:
    """A cluster with databases of these names."""
    listed = [{"name": name, "id": number} for number, name in enumerate(names, start=100)]
    replies: dict[str, Any] = {"/databases": {"databases": listed}}
    for number, name in enumerate(names, start=100):
        below = documented_database(name, number)
        replies |= {f"/databases/{quote(name, safe='')}{path}": reply for path, reply in below.items()}
    return replies


def tables(names: tuple[str, ...]) -> dict[str, Any]:
    """A cluster with one database of tables of these names."""
    replies = databases(("bank",))
    listed = [{"name": name, "schema_name": name, "table_id": number} for number, name in enumerate(names)]
    replies["/databases/bank/tables"] = {"tables": listed}
    for number, name in enumerate(names):
        path = f"/databases/bank/tables/{quote(name, safe='')}"
        replies[path] = {**documented_table("bank", name, number), "schema_name": name}
    return replies


def published(run: Suffered, stream: str) -> list[dict[str, Any]]:
    """The records of a stream, which are the same in both sinks."""
    [path] = run.place.glob(f"lake/{stream}/date=*/*.parquet")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    names = [name for name in rows[0] if not name.endswith(("_at", "_time", "_of"))]
    assert [[row[name] for name in names] for row in rows] == [
        [row[name] for name in names] for row in run.lines[stream]
    ]
    return rows


def assert_kept_promises(run: Suffered, exit_code: int) -> None:
    assert run.report.exit_code == exit_code, run.report.error
    assert_published_as_reported(run)
    assert_secrets_kept(run)
    assert [each for each in UNSHOWABLE if each in run.said] == []
    written = {path.relative_to(run.place) for path in run.place.rglob("*")}
    assert {path.parts[0] for path in written} == {"state", "lake", "lines"}
    assert max(len(path.name.encode()) for path in written) < 60


@pytest.mark.parametrize("refused", [False, True], ids=["read", "forbidden"])
def test_tables_of_hostile_names_are_published_as_they_are(suffer: Export, refused: bool) -> None:
    rules = [Rule("/databases/bank/tables/.*", [refuses("403 No")], lasting=True)] if refused else []
    run = suffer(FaultServer(on_the_wire(tables(NAMES)), rules))
    assert_kept_promises(run, 3 if refused else 0)
    rows = published(run, "tables")
    assert [(row["schema_name"], row["table_name"]) for row in rows] == [(name, name) for name in sorted(NAMES)]
    assert {row["details"] for row in rows} == {"forbidden" if refused else "fetched"}
    assert len({row["record_id"] for row in rows}) == len(NAMES)
    assert {gap.table for gap in run.report.gaps} == (set(NAMES) if refused else set())
    assert all(name in run.said for name in ("x" * 255, "'")) is refused


@pytest.mark.slow
def test_databases_of_hostile_names_are_published_as_they_are(suffer: Export) -> None:
    run = suffer(FaultServer(on_the_wire(databases(NAMES))))
    assert_kept_promises(run, 0)
    assert [row["database_name"] for row in published(run, "databases")] == sorted(NAMES)
    assert len(published(run, "tables")) == len(NAMES) * len(TABLES)


@pytest.mark.parametrize("world", [tables, databases])
def test_a_name_that_no_url_can_carry_is_a_gap_and_costs_no_request(suffer: Export, world: Any) -> None:
    run = suffer(FaultServer(on_the_wire(world((*UNADDRESSABLE, "fine")))))
    assert_kept_promises(run, 3)
    assert {gap.reason for gap in run.report.gaps} == {"unaddressable"}
    asked = {gap.table if gap.table is not None else gap.database for gap in run.report.gaps}
    assert asked == set(UNADDRESSABLE)
    stream = "tables" if world is tables else "databases"
    told = {row[f"{stream[:-1]}_name"]: row["details"] for row in published(run, stream)}
    assert told == {**dict.fromkeys(UNADDRESSABLE, "unaddressable"), "fine": "fetched"}
    assert not [path for path in run.server.paths if ".." in path or "//" in path]


def test_numbers_are_exact_up_to_the_last_of_64_bits(suffer: Export) -> None:
    numbers: list[Any] = [2**63 - 1, -(2**63), str(2**63 - 1), 2**53 + 1, "9007199254740993", "-1", 0, None]
    names = tuple(f"t{place}" for place in range(len(numbers)))
    replies = tables(names)
    for name, number in zip(names, numbers, strict=True):
        replies[f"/databases/bank/tables/{name}"] |= {"size_bytes": number, "range_count": number}
    run = suffer(FaultServer(on_the_wire(replies)))
    assert_kept_promises(run, 0)
    exact = [None if number is None else int(number) for number in numbers]
    assert [row["size_bytes"] for row in published(run, "tables")] == exact
    assert [row["range_count"] for row in published(run, "tables")] == exact


def test_what_is_listed_twice_is_published_once(suffer: Export) -> None:
    replies = databases(("bank", "movr"))
    for path, name in (("/databases", "databases"), ("/databases/bank/tables", "tables")):
        replies[path] = {name: replies[path][name] * 3}
    run = suffer(FaultServer(on_the_wire(replies)))
    assert_kept_promises(run, 0)
    assert len(published(run, "databases")) == 2
    assert len(published(run, "tables")) == 6
    assert set(run.server.paths.values()) == {1}


def test_a_name_shared_by_two_schemas_is_not_taken_for_the_other(suffer: Export) -> None:
    replies = databases(("bank",))
    listed = replies["/databases/bank/tables"]["tables"]
    listed.append({"name": "users", "schema_name": "audit", "table_id": "77"})
    run = suffer(FaultServer(on_the_wire(replies)))
    assert_kept_promises(run, 3)
    assert [(gap.schema, gap.table, gap.reason) for gap in run.report.gaps] == [("audit", "users", "ambiguous")]
    details = {(row["schema_name"], row["table_name"]): row["details"] for row in published(run, "tables")}
    assert (details["audit", "users"], details["public", "users"]) == ("ambiguous", "fetched")
    assert not [row for row in published(run, "columns") if row["schema_name"] == "audit"]


@pytest.mark.parametrize("path", ["/databases/movr/tables/accounts", "/databases/bank/grants"])
def test_an_answer_that_nobody_asked_for_is_not_taken_for_that_of_the_next_request(
    suffer: Export, healthy: dict[str, Any], path: str
) -> None:
    run = suffer(FaultServer(on_the_wire(documented()), [Rule(path, [said_twice])]), concurrency=1)
    assert_kept_promises(run, 0)
    assert_nothing_lost_but((), run.lines, healthy["documented"])


def test_the_tree_stays_within_its_directory_whatever_the_cluster_is_called(suffer: Export, tmp_path: Path) -> None:
    run = suffer(FaultServer(on_the_wire(tables(("a",)))), cluster="../../x/\x1b", run_id="..")
    assert_published_as_reported(run)
    assert {path.name for path in tmp_path.iterdir()} == {"state", "lake", "lines"}
    assert run.report.exit_code == 0
