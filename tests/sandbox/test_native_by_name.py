from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from crdbexport.sandbox.native.table_reply import SENSITIVE
from crdbexport.sandbox.world import World

INTERNAL = (500, "An internal server error has occurred. Please check your CockroachDB logs for more details.")
NO_SUCH_DATABASE = (404, "database not found")
NO_SUCH_TABLE = (404, "database or table not found")

LISTED = """
    "Audit".users  "My Schema".t  "group".t  a.b  audit.users  pg_temp_1700000000000000000_1.scratch
    public."2024.plan"  public."2024_sales"  public."Daily Totals"  public."ORDERS"  public."Users"  public."a.b"
    public."größe"  public."in/out"  public."order items"  public."order-items"  public."order"  public."price$"
    public."quote""inside"  public."select"  public.heap  public.order_totals  public.users
"""


@pytest.fixture(scope="module")
def world() -> World:
    return World(native_names=True, views=1)


def columns_of(world: World, schema: str, name: str) -> list[str]:
    table = world.table_in("names", schema, name)
    assert table is not None
    return [column.name for column in table.columns]


def every_page(cluster: Any, path: str, limit: int, most: int = 50) -> list[dict[str, Any]]:
    """The bodies of all pages, following `next` while there is one."""
    pages: list[dict[str, Any]] = []
    offset = 0
    while len(pages) < most:
        pages.append(cluster.told(path, limit=limit, offset=offset))
        if "next" not in pages[-1]:
            return pages
        offset = pages[-1]["next"]
    return pages


def test_databases_are_bare_strings_by_name(named: Any, world: World) -> None:
    names = named.told("/databases/")["databases"]
    assert names == sorted(world.database_names())
    assert {"node-red", "Mixed_Case", "names", "system"} < set(names)


def test_databases_have_next_on_all_pages_but_the_last(native: Any) -> None:
    five = native(World(4))
    pages = every_page(five, "/databases/", 2)
    assert [page.get("next") for page in pages] == [2, 4, None]
    assert [page.get("next") for page in every_page(five, "/databases/", 5)] == [None]
    assert [name for page in pages for name in page["databases"]] == five.told("/databases/")["databases"]
    assert five.told("/databases/", limit=2, offset=5) == {}


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": -1}, {"limit": "x"}, {"offset": 2}, {"limit": "9" * 30}])
def test_a_limit_that_is_none_asks_for_everything(named: Any, query: dict[str, Any]) -> None:
    assert named.told("/databases/", **query) == named.told("/databases/")


@pytest.mark.parametrize("offset", ["x", -3])
def test_an_offset_that_is_none_is_zero(named: Any, offset: str | int) -> None:
    assert named.told("/databases/", limit=1, offset=offset) == {"databases": ["2024_archive"], "next": 1}


def test_a_database_tells_its_id_alone(named: Any, world: World) -> None:
    for name in ("movr", "Mixed_Case", "2024_archive", "dotted.name", "system"):
        assert named.told(f"/databases/{name}/") == {"descriptor_id": world.database_id(name)}


def test_an_unknown_database_is_an_internal_error_only_where_its_id_is_asked(named: Any) -> None:
    assert named.refused("/databases/nope/") == named.refused("/databases/MOVR/") == INTERNAL
    assert named.refused("/databases/nope/grants/") == NO_SUCH_DATABASE
    assert named.refused("/databases/nope/tables/") == NO_SUCH_DATABASE
    assert named.refused("/databases/nope/tables/public.users/") == NO_SUCH_TABLE


def test_each_privilege_is_an_element_of_its_own(named: Any, world: World) -> None:
    elements = named.told("/databases/movr/grants/")["grants"]
    assert {"user": "app_user", "privileges": ["CREATE"]} in elements
    held = {(element["user"], *element["privileges"]) for element in elements}
    assert held == {(grant.user, each) for grant in world.database_grants("movr") for each in grant.privileges}
    assert len(held) == len(elements) > len(world.database_grants("movr"))


def test_lists_of_grants_and_tables_have_next_on_every_full_page(named: Any) -> None:
    grants = len(named.told("/databases/movr/grants/")["grants"])
    assert [page.get("next") for page in every_page(named, "/databases/movr/grants/", grants)] == [grants, None]
    assert named.told("/databases/movr/grants/", limit=grants, offset=grants) == {"grants": None}
    tables = named.told("/databases/movr/tables/")["table_names"]
    assert len(tables) == 13
    assert [page.get("next") for page in every_page(named, "/databases/movr/tables/", 13)] == [13, None]
    assert named.told("/databases/movr/tables/", limit=13, offset=13) == {}
    assert [page.get("next") for page in every_page(named, "/databases/movr/tables/", 5)] == [5, 10, None]


def test_an_empty_database_lists_nothing(named: Any) -> None:
    assert named.told("/databases/defaultdb/tables/") == {}


def test_tables_are_quoted_strings_with_views_among_them(named: Any) -> None:
    names = named.told("/databases/names/tables/")["table_names"]
    assert sorted(names) == sorted(each for line in LISTED.strip().split("\n") for each in line.strip().split("  "))


def test_tables_are_sorted_by_name_alone(named: Any, world: World) -> None:
    names = named.told("/databases/names/tables/")["table_names"]
    bare = sorted(each.name for each in world.tables("names"))
    assert [name.partition(".")[2].strip('"').replace('""', '"') for name in names] == bare
    assert names[-3:] == ["public.users", '"Audit".users', "audit.users"]


@pytest.mark.parametrize(
    ("requested", "schema", "name"),
    [
        ("public.users", "public", "users"),
        ("users", "public", "users"),
        ("audit.users", "audit", "users"),
        ("public.order", "public", "order"),
        ("public.select", "public", "select"),
        ("order", "public", "order"),
        ("2024_sales", "public", "2024_sales"),
        ("2024.plan", "public", "2024.plan"),
        ("pg_temp_1700000000000000000_1.scratch", "pg_temp_1700000000000000000_1", "scratch"),
        # Another table's details, every one of them with 200:
        ("public.Users", "public", "users"),
        ("Audit.users", "audit", "users"),
        ("a.b", "a", "b"),
        ("public.a.b", "a", "b"),
    ],
)
def test_a_requested_name_means_what_sql_makes_of_it(
    named: Any, world: World, requested: str, schema: str, name: str
) -> None:
    table = world.table_in("names", schema, name)
    assert table is not None
    assert named.told(f"/databases/names/tables/{requested}/")["descriptor_id"] == table.table_id


@pytest.mark.parametrize(
    "requested", ["public.ORDERS", "public.2024_sales", "group.t", "a..b", ".users", "x.y.z.users"]
)
def test_a_name_that_sql_makes_nothing_of_is_not_found(named: Any, requested: str) -> None:
    assert named.refused(f"/databases/names/tables/{requested}/") == NO_SUCH_TABLE


def test_details_leave_out_zeros_and_falsehoods(native: Any) -> None:
    world = World(databases=6, tables=40)
    empty = next(each for each in world.tables("shop_05") if each.kind == "table" and not each.size_bytes)
    body = native(world).told(f"/databases/shop_05/tables/{empty.schema_name}.{empty.name}/")
    assert not {"data_total_bytes", "data_live_bytes", "data_live_percentage"} & set(body)
    assert all("hidden" not in column for column in body["columns"])
    assert {column.get("nullable") for column in body["columns"]} <= {True, None}
    assert {index.get("unique") for index in body["indexes"]} <= {True, None}


@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_details_tell_what_the_world_knows(native: Any, world: World, generation: str) -> None:
    body = native(world, generation=generation).told("/databases/movr/tables/public.rides/")
    table = world.table("movr", "rides")
    assert table is not None
    assert (body["descriptor_id"], body["range_count"]) == (table.table_id, table.range_count)
    assert (body["data_total_bytes"], body["data_live_bytes"]) == (table.size_bytes, table.live_bytes)
    assert 0 < body["data_live_percentage"] < 1
    told = [(each["name"], each["type"], each.get("nullable", False)) for each in body["columns"]]
    assert told == [(each.name, each.type, each.nullable) for each in table.columns]
    assert body["stats_last_created_at"].endswith("Z")
    assert not {"table_name", "schema_name", "database_name", "table_id", "size_bytes"} & set(body)


def test_sensitive_literals_stand_where_real_ones_may(native: Any) -> None:
    old, new = (native(generation=each).told("/databases/movr/tables/public.rides/") for each in ("v22", "v25"))
    assert SENSITIVE in new["create_table_statement"]
    assert {"name": "city", "type": "STRING", "default_value": f"'{SENSITIVE}'"} in new["columns"]
    assert {"name": "city", "type": "STRING", "default_value": f"'{SENSITIVE}':::STRING"} in old["columns"]
    assert any(SENSITIVE in column.get("generation_expression", "") for column in new["columns"])
    assert (new["zone_config"]["constraints"], new["zone_config"]["subzone_spans"][0].keys()) == (
        None,
        {"key", "subzone_index"},
    )
    assert "voter_constraints" in new["zone_config"].keys() - old["zone_config"].keys()


def test_an_index_has_a_row_for_each_column_in_no_order(native: Any, world: World) -> None:
    cluster = native(world)
    seen: Counter[str] = Counter()
    shuffled = 0
    for listed in world.tables("bank"):
        table = world.table("bank", listed.name)
        if table is None or table.kind != "table":
            continue
        rows = cluster.told(f"/databases/bank/tables/{table.schema_name}.{table.table_name}/")["indexes"]
        shuffled += rows != sorted(rows, key=lambda row: (row["name"], row["seq"]))
        for position, index in enumerate(table.indexes):
            mine = sorted((row for row in rows if row["name"] == index.name), key=lambda row: row["seq"])
            assert [row["seq"] for row in mine] == list(range(1, len(mine) + 1))
            parts = {kind: [r["column"] for r in mine if r.get(kind)] for kind in ("storing", "implicit")}
            key = [row for row in mine if not row.get("storing") and not row.get("implicit")]
            assert [(row["column"], row["direction"]) for row in key] == list(
                zip(index.columns, index.directions, strict=True)
            )
            assert {row.get("unique", False) for row in mine} == {index.unique}
            assert {row["direction"] for row in mine if row.get("storing")} <= {"N/A"}
            if position:
                assert parts["storing"] == list(index.stored)
                assert set(table.indexes[0].columns) <= {row["column"] for row in mine}
                seen += Counter(storing=bool(index.stored), implicit=bool(parts["implicit"]))
                seen["descending"] += "DESC" in index.directions
            else:
                assert {row["column"] for row in mine} == {column.name for column in table.columns}
    assert min(seen["storing"], seen["implicit"], seen["descending"]) > 0
    assert shuffled > 6


def test_a_table_without_a_key_shows_the_hidden_one(named: Any, world: World) -> None:
    body = named.told("/databases/names/tables/public.heap/")
    hidden = {"name": "rowid", "type": "INT8", "default_value": "unique_rowid()", "hidden": True}
    assert body["columns"][-1] == hidden
    assert [each["name"] for each in body["columns"]] == columns_of(world, "public", "heap")
    assert [row["column"] for row in body["indexes"] if row["name"] == "heap_pkey" and row["seq"] == 1] == ["rowid"]


@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_views_are_listed_and_have_no_details(native: Any, world: World, generation: str) -> None:
    cluster = native(world, generation=generation)
    views = [name for name in cluster.told("/databases/movr/tables/")["table_names"] if ".recent_" in name]
    assert len(views) == 1
    assert [cluster.refused(f"/databases/movr/tables/{views[0]}/") for _ in range(2)] == [INTERNAL] * 2
    assert cluster.refused("/databases/names/tables/public.order_totals/") == INTERNAL


def test_what_is_offline_is_listed_and_has_no_details(native: Any) -> None:
    cluster = native(offline_tables={"movr.public.rides"})
    assert "public.rides" in cluster.told("/databases/movr/tables/")["table_names"]
    assert cluster.refused("/databases/movr/tables/public.rides/") == INTERNAL
    assert cluster.told("/databases/movr/tables/public.users/")


def test_without_privileges_lists_are_shorter_and_nothing_says_so(native: Any) -> None:
    cluster = native(hidden_databases={"bank"}, hidden_tables={"movr.public.rides"})
    assert cluster.told("/databases/")["databases"] == ["defaultdb", "movr", "postgres", "system"]
    assert cluster.told("/databases/bank/grants/") == {"grants": None}
    assert cluster.told("/databases/bank/tables/") == {}
    tables = cluster.told("/databases/movr/tables/")["table_names"]
    assert (len(tables), "public.rides" in tables) == (11, False)
    assert cluster.refused("/databases/movr/tables/public.rides/") == INTERNAL


def test_without_zoneconfig_every_table_is_listed_and_none_is_told(native: Any) -> None:
    cluster = native(without_zoneconfig=True)
    tables = cluster.told("/databases/movr/tables/")["table_names"]
    assert len(tables) == 12
    assert {cluster.refused(f"/databases/movr/tables/{name}/") for name in tables} == {INTERNAL}


@pytest.mark.parametrize("path", ["/databases/", "/databases/names/grants/", "/databases/names/tables/"])
def test_next_can_stand_still_or_go_round(native: Any, world: World, path: str) -> None:
    body = native(world).told(path)
    (whole,) = body.values()
    for quirk, offsets in (("stuck", {2}), ("cycling", set(range(2, len(whole), 2)))):
        cluster = native(world, next_offset=quirk)
        pages = every_page(cluster, path, 2)
        assert len(pages) == 50
        assert {page["next"] for page in pages} == offsets
        assert cluster.told(path) == body


def test_equal_names_can_change_places_between_pages(native: Any, world: World) -> None:
    steady, moving = native(world), native(world, unstable_ties=True)
    path = "/databases/names/tables/"
    at = steady.told(path)["table_names"].index("public.users")
    for cluster, repeated in ((steady, False), (moving, True)):
        told = [name for page in every_page(cluster, path, at + 1) for name in page.get("table_names", [])]
        assert len(told) == 23
        assert (len(set(told)) < 23) is repeated
    assert moving.told(path) == steady.told(path)
