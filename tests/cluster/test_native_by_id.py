from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from crdbexport.cluster.dialects import native_metadata
from crdbexport.records import STREAMS
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.world import World
from tests.cluster.native_reading import Read

NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
SIZES = ("databases", "tables")
STATS = ("replicated_bytes", "live_bytes", "range_count", "replica_count", "store_ids", "stats_as_of")


class Recording(NativeSandbox):
    """A current cluster that keeps the paths and queries that it was asked for, in order."""

    def __init__(self, world: World, *rules: Rule, **quirks: Any) -> None:
        super().__init__(world, faults=Faults(rules=rules), quirks=Quirks(**quirks), clock=lambda: NOW)
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode()
        self.asked.append(scope["path"].removeprefix("/api/v2/") + (f"?{query}" if query else ""))
        await super().__call__(scope, receive, send)

    def asked_below(self, prefix: str) -> list[str]:
        return [each for each in self.asked if each.startswith(prefix)]


def body(value: Any) -> Body:
    return Body(json.dumps(value).encode())


def grants_of(world: World, database: str, schema: str, name: str) -> list[tuple[str, str]]:
    table = world.table_in(database, schema, name)
    assert table is not None
    return [(grant.user, privilege) for grant in table.grants for privilege in grant.privileges]


@pytest.mark.slow
def test_ten_thousand_tables_cost_tens_of_requests(read: Read) -> None:
    app = Recording(World(20, 500))
    told = read(app, SIZES)
    assert len(told.rows("tables")) == 18 * 500
    assert told.gaps == {}
    assert told.requests.total == len(app.asked) <= 60
    assert {row["details"] for row in told.rows("tables")} == {"not_requested"}
    assert {row["details"] for row in told.rows("databases")} == {"fetched"}


def test_measures_come_from_the_metadata(read: Read) -> None:
    world = World(3, 12)
    told = read(Recording(world), SIZES)
    assert told.rows("tables")
    for row in told.rows("tables"):
        table = world.table_in(row["database_name"], row["schema_name"], row["table_name"])
        assert table is not None
        assert [row[each] for each in ("table_id", "kind", "size_bytes", *STATS[:-1])] == [
            table.table_id,
            "table",
            table.size_bytes,
            table.replicated_bytes,
            table.live_bytes,
            table.range_count,
            table.replica_count,
            list(table.store_ids),
        ]
        assert 60 <= (NOW - row["stats_as_of"]).total_seconds() < 62
    for row in told.rows("databases", details="fetched"):
        details = world.database(row["database_name"])
        assert details is not None
        assert (row["database_id"], row["size_bytes"]) == (details.id, None)
        if details.table_count:
            assert row["replicated_bytes"] == world.replicated_bytes(details.name) != details.size_bytes
            assert (row["table_count"], row["store_ids"]) == (details.table_count, list(details.store_ids))
            assert 60 <= (NOW - row["stats_as_of"]).total_seconds() < 62


def test_a_zero_that_was_never_measured_is_null(read: Read) -> None:
    told = read(Recording(World(3, 4), cold_cache=True), SIZES)
    for row in told.rows("databases"):
        assert row["database_id"] is not None
        assert [row[each] for each in ("replicated_bytes", "table_count", "store_ids", "stats_as_of")] == [None] * 4
    assert len(told.rows("tables")) == 8
    assert {row[each] for row in told.rows("tables") for each in ("table_id", "kind", "size_bytes", *STATS)} == {None}


def test_an_empty_table_that_was_measured_is_zero(read: Read) -> None:
    world = World(8, 40)
    told = read(Recording(world), ("tables",))
    empty = told.rows("tables", size_bytes=0)
    assert empty
    assert {(row["live_bytes"], row["replicated_bytes"], row["range_count"]) for row in empty} == {(0, 0, 1)}
    assert not told.rows("tables", size_bytes=None)


def test_details_fill_what_a_cold_cache_lacks(read: Read) -> None:
    world = World(1, 12)
    told = read(Recording(world, cold_cache=True), ("tables", "columns"))
    assert told.gaps == {}
    for row in told.rows("tables"):
        table = world.table_in("movr", row["schema_name"], row["table_name"])
        assert table is not None
        assert (row["table_id"], row["size_bytes"] or 0) == (table.table_id, table.size_bytes)
        assert (row["range_count"], row["stats_as_of"], row["details"]) == (table.range_count, None, "fetched")


def test_measures_of_one_record_are_of_one_time(read: Read) -> None:
    world = World(1, 12)
    table = next(each for each in world.tables("movr") if each.size_bytes)
    reply = {"descriptor_id": table.table_id, "data_total_bytes": 1, "data_live_bytes": 1, "range_count": 77}
    path = f"/api/v2/databases/movr/tables/{table.schema_name}[.]{table.name}/"
    rule = Rule(path, body({**reply, "columns": None, "indexes": None, "grants": None}))
    told = read(Recording(world, rule), ("tables", "columns"))
    [row] = told.rows("tables", schema_name=table.schema_name, table_name=table.name)
    assert (rule.fired, row["details"], row["size_bytes"]) == (1, "fetched", table.size_bytes)
    assert row["range_count"] != 77


@pytest.mark.parametrize(
    ("streams", "details", "grants"),
    [
        (("databases",), 0, 0),
        (("tables",), 0, 0),
        (("columns",), 6, 0),
        (("indexes", "tables"), 6, 0),
        (("table_grants",), 0, 6),
        (tuple(STREAMS), 6, 0),
    ],
)
def test_each_stream_costs_what_it_needs(read: Read, streams: tuple[str, ...], details: int, grants: int) -> None:
    app = Recording(World(1, 6))
    told = read(app, streams)
    assert told.gaps == {}
    lists = ["databases/movr/tables/", "databases/movr/grants/"]
    asked = [each for each in app.asked_below("databases/movr/") if each not in lists]
    assert (len(asked), len(app.asked_below("grants/tables/"))) == (details, grants)
    per_database = 0 if streams == ("databases",) else 1
    assert len(app.asked_below("table_metadata/")) == per_database
    assert app.asked_below("database_metadata/") == ["database_metadata/?pageNum=1&pageSize=1000"]


def test_metadata_come_in_large_pages_to_the_last_one(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_metadata, "TABLES_A_PAGE", 5)
    monkeypatch.setattr(native_metadata, "DATABASES_A_PAGE", 2)
    app = Recording(World(2, 10))
    told = read(app, SIZES)
    assert len(told.rows("tables", kind="table")) == 20
    assert [each.rpartition("?")[2] for each in app.asked_below("database_metadata/")] == [
        "pageNum=1&pageSize=2",
        "pageNum=2&pageSize=2",
    ]
    assert len(app.asked_below("table_metadata/")) == 4


def test_a_server_with_smaller_pages_than_asked_for_is_followed_by_its_total(read: Read) -> None:
    world = World(1, 6)
    tables = sorted((each.table_id, each.schema_name, each.name) for each in world.tables("movr"))
    rows = [{"table_id": number, "schema_name": schema, "table_name": name} for number, schema, name in tables]
    rules = [
        Rule("/api/v2/table_metadata/", body({"results": rows[2 * n : 2 * n + 2], **TOTAL}), hits={n + 1})
        for n in range(3)
    ]
    app = Recording(world, *rules)
    told = read(app, ("tables",))
    assert len(told.rows("tables", kind="table")) == 6
    assert [each.partition("pageNum=")[2] for each in app.asked_below("table_metadata/")] == [
        f"{number}&pageSize=2000" for number in (1, 2, 3)
    ]


TOTAL = {"pagination_info": {"total_results": 6, "page_size": 2, "page_num": 1}}


def test_metadata_that_repeat_themselves_are_a_gap_that_keeps_the_list(read: Read) -> None:
    world = World(1, 6)
    first = min(world.tables("movr"), key=lambda each: each.table_id)
    row = {"table_id": first.table_id, "schema_name": first.schema_name, "table_name": first.name}
    app = Recording(world, Rule("/api/v2/table_metadata/", body({"results": [row], **TOTAL})))
    told = read(app, ("tables",))
    assert told.gaps == {("tables", "movr", None, None): "pagination_loop"}
    assert (len(told.rows("tables")), len(app.asked_below("table_metadata/"))) == (6, 2)
    assert [each["table_name"] for each in told.rows("tables", kind="table")] == [first.name]


def test_metadata_that_cannot_be_read_are_a_gap_that_keeps_the_list(read: Read) -> None:
    told = read(Recording(World(1, 6), Rule("/api/v2/table_metadata/", Status(500))), ("tables",))
    assert told.gaps == {("tables", "movr", None, None): "server_error"}
    assert {(row["kind"], row["size_bytes"]) for row in told.rows("tables")} == {(None, None)}
    assert len(told.rows("tables")) == 6


def test_dropped_tables_of_the_cache_are_not_told(read: Read) -> None:
    rule = Rule("/api/v2/databases/movr/tables/", body({"table_names": ["public.users"]}))
    told = read(Recording(World(1, 6), rule), ("tables",))
    assert [row["table_name"] for row in told.rows("tables")] == ["users"]


def test_views_are_known_by_their_absence_from_the_metadata(read: Read) -> None:
    told = read(Recording(World(2, 6, views=1)))
    views = [key for key, reason in told.gaps.items() if reason == "view"]
    assert [key[1] for key in views] == ["bank", "movr"]
    assert len(told.gaps) == 2
    assert {row["details"] for row in told.rows("tables", kind=None)} == {"view"}
    assert len(told.rows("tables", kind="table")) == 12


def test_a_table_that_is_listed_as_one_is_no_view_however_it_fails(read: Read) -> None:
    world = World(1, 6)
    told = read(Recording(world, offline_tables=["movr.public.users"]), ("columns",))
    assert told.gaps == {("details", "movr", "public", "users"): "server_error"}


def test_a_cold_cache_tells_no_view_from_a_failing_table(read: Read) -> None:
    told = read(Recording(World(1, 6, views=1), cold_cache=True))
    assert list(told.gaps.values()) == ["server_error"]


def test_a_database_without_a_route_is_read_by_its_id(read: Read) -> None:
    world = World(native_names=True)
    told = read(Recording(world), ("databases", "database_grants", "tables", "table_grants"), ("node-red",))
    assert told.gaps == {("tables", "node-red", None, None): "unaddressable"}
    [row] = told.rows("databases")
    assert (row["details"], row["replicated_bytes"]) == ("fetched", world.replicated_bytes("node-red"))
    assert [(each["grantee"], each["privilege_type"]) for each in told.rows("database_grants")] == [
        (grant.user, privilege) for grant in world.database_grants("node-red") for privilege in grant.privileges
    ]
    names = {(each.schema_name, each.name) for each in world.tables("node-red")}
    assert {(row["schema_name"], row["table_name"]) for row in told.rows("tables", kind="table")} == names
    for schema, name in names:
        rows = told.rows("table_grants", schema_name=schema, table_name=name)
        assert [(row["grantee"], row["privilege_type"]) for row in rows] == grants_of(world, "node-red", schema, name)


def test_grants_of_tables_that_no_name_reaches_are_read_by_id(read: Read) -> None:
    world = World(native_names=True)
    tables = [each for each in world.tables("names") if each.kind == "table"]
    for streams, details in ((("tables", "table_grants"), "fetched"), (tuple(STREAMS), "unaddressable")):
        told = read(Recording(world), streams, ("names",))
        for each in tables:
            where = {"schema_name": each.schema_name, "table_name": each.name}
            rows = [(row["grantee"], row["privilege_type"]) for row in told.rows("table_grants", **where)]
            assert rows == grants_of(world, "names", each.schema_name, each.name)
        [row] = told.rows("tables", schema_name="public", table_name="Users")
        assert (row["details"], row["size_bytes"]) == (details, row["size_bytes"])
        assert ("details", "names", "public", "Users") in told.gaps or details == "fetched"
        assert not told.rows("columns", table_name="Users")


def test_a_database_that_may_not_be_connected_to_is_read_by_name(read: Read) -> None:
    world = World(2, 6)
    told = read(Recording(world, without_connect=["bank"]))
    assert told.gaps == {}
    [row] = told.rows("databases", database_name="bank")
    assert (row["database_id"], row["replicated_bytes"]) == (world.database_id("bank"), None)
    tables = told.rows("tables", database_name="bank")
    assert (len(tables), {row["details"] for row in tables}) == (6, {"fetched"})
    assert {row["replicated_bytes"] for row in tables} == {None}
    assert told.rows("table_grants", database_name="bank")


def test_details_with_another_id_than_the_metadata_are_ambiguous(read: Read) -> None:
    reply = {"descriptor_id": 1, "columns": [{"name": "of_another"}], "indexes": None, "grants": None}
    rule = Rule("/api/v2/databases/movr/tables/public[.]users/", body(reply))
    told = read(Recording(World(1, 6), rule))
    assert told.gaps == {("details", "movr", "public", "users"): "ambiguous"}
    assert not told.rows("columns", column_name="of_another")


@pytest.mark.parametrize("wrong", ["database_name", "schema_name", "table_name"])
def test_grants_of_another_table_than_asked_for_are_ambiguous(read: Read, wrong: str) -> None:
    world = World(1, 6)
    users = world.table_in("movr", "public", "users")
    assert users is not None
    names = {"database_name": "movr", "schema_name": "public", "table_name": "users", wrong: "another"}
    rule = Rule(f"/api/v2/grants/tables/{users.table_id}/", body({"results": [], **names}))
    told = read(Recording(world, rule), ("table_grants",))
    assert told.gaps == {("details", "movr", "public", "users"): "ambiguous"}


def test_grants_by_id_that_fail_get_a_second_look(read: Read) -> None:
    world = World(1, 6)
    users = world.table_in("movr", "public", "users")
    assert users is not None
    path = f"grants/tables/{users.table_id}/"
    app = Recording(world, Rule(f"/api/v2/{path}", Status(500), hits={1}))
    told = read(app, ("table_grants",))
    assert (told.gaps, app.asked.count(path)) == ({}, 2)
    assert told.rows("table_grants")[-1]["table_name"] == "users"


def test_a_failed_measuring_keeps_its_own_time(read: Read) -> None:
    told = read(Recording(World(1, 6), failing_stats=["movr.public.users"]), ("tables",))
    ages = {row["table_name"]: (NOW - row["stats_as_of"]).days for row in told.rows("tables")}
    assert ages.pop("users") == 1
    assert set(ages.values()) == {0}


def test_zeros_of_a_table_that_was_never_measured_are_null(read: Read) -> None:
    world = World(1, 1)
    [table] = world.tables("movr")
    row = {"table_id": table.table_id, "schema_name": table.schema_name, "table_name": table.name}
    zeros = {"replication_size_bytes": 0, "range_count": 0, "total_data_bytes": 0, "last_updated": None}
    told = read(Recording(world, Rule("/api/v2/table_metadata/", body({"results": [{**row, **zeros}]}))), ("tables",))
    [record] = told.rows("tables")
    assert (record["table_id"], record["kind"], record["details"]) == (table.table_id, "table", "not_requested")
    assert {record[each] for each in ("size_bytes", *STATS)} == {None}


def test_grants_of_another_database_than_asked_for_are_ambiguous(read: Read) -> None:
    world = World(native_names=True)
    path = f"/api/v2/grants/databases/{world.database_id('node-red')}/"
    rule = Rule(path, body({"results": [{"grantee": "a", "privilege": "ALL"}], "name": "node-blue"}))
    told = read(Recording(world, rule), ("databases", "database_grants"), ("node-red",))
    assert told.gaps == {("grants", "node-red", None, None): "ambiguous"}
    assert told.rows("database_grants") == []
