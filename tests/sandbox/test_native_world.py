from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.native.names import RESERVED, listed, quoted, resolved
from crdbexport.sandbox.objects import TableDetails
from crdbexport.sandbox.world import World

HERE = "names"


@pytest.fixture(scope="module")
def world() -> World:
    return World(databases=6, tables=30, native_names=True, hostile_names=True, views=3)


def tables_of(world: World, *names: str) -> list[TableDetails]:
    listings = ((name, each) for name in names or world.database_names() for each in world.tables(name))
    found = [world.table_in(name, each.schema_name, each.name) for name, each in listings]
    return [table for table in found if table is not None]


def test_every_object_is_found_by_its_id(world: World) -> None:
    for name in world.database_names():
        assert world.database_name(world.database_id(name) or 0) == name
    tables = tables_of(world)
    assert len(tables) > 200
    assert all(world.table_with_id(table.table_id) == table for table in tables)


@pytest.mark.parametrize("descriptor_id", [-1, 0, 2, 7, 103, 10_000_000])
def test_an_id_of_nothing_finds_nothing(world: World, descriptor_id: int) -> None:
    assert world.database_name(descriptor_id) is None
    assert world.table_with_id(descriptor_id) is None


def test_ids_of_databases_and_tables_are_never_mistaken_for_each_other(world: World) -> None:
    for name in world.database_names():
        database_id = world.database_id(name)
        assert database_id is not None
        assert world.table_with_id(database_id) is None
    assert all(world.database_name(table.table_id) is None for table in tables_of(world))


def test_descriptor_ids_are_unique_with_every_kind_of_name(world: World) -> None:
    ids = [world.database_id(name) for name in world.database_names()]
    ids += [table.table_id for table in tables_of(world)]
    assert len(set(ids)) == len(ids)


def test_views_come_after_the_tables_and_change_nothing_of_them() -> None:
    without, with_views = World(), World(views=2)
    for name in ("movr", "bank"):
        tables, more = list(without.tables(name)), list(with_views.tables(name))
        assert [(each.name, each.size_bytes) for each in more[:-2]] == [(each.name, each.size_bytes) for each in tables]
        assert [each.kind for each in more[-2:]] == ["view", "view"]
        one, other = without.database(name), with_views.database(name)
        assert one is not None
        assert other is not None
        assert (one.size_bytes, one.table_count) == (other.size_bytes, other.table_count)
    assert not list(with_views.tables("defaultdb"))


def test_views_have_columns_and_take_no_room() -> None:
    views = [table for table in tables_of(World(views=2), "movr") if table.kind == "view"]
    assert len(views) == 2
    for view in views:
        assert view.columns
        assert (view.indexes, view.size_bytes, view.range_count, view.store_ids) == ((), 0, 0, ())


def test_native_names_leave_the_rest_of_the_world_as_it_is() -> None:
    assert tables_of(World(tables=30), "movr") == tables_of(World(tables=30, native_names=True), "movr")


def test_sizes_of_all_copies_and_of_live_data_follow_the_size_of_one(world: World) -> None:
    tables = tables_of(world)
    for table in tables:
        assert 0 <= table.live_bytes <= table.size_bytes
        assert table.replicated_bytes <= 3 * table.size_bytes
        assert table.replica_count == 3 * table.range_count
        assert bool(table.live_bytes) == bool(table.replicated_bytes) == bool(table.size_bytes)
    assert sum(table.live_bytes < table.size_bytes * 0.7 for table in tables) > 20
    bank = [table.replicated_bytes for table in tables if table.database_name == "bank"]
    assert world.replicated_bytes("bank") == sum(bank)


def test_stores_are_those_of_the_database(world: World) -> None:
    for table in tables_of(world, "bank", HERE):
        database = world.database(table.database_name)
        assert database is not None
        assert table.store_ids == (database.store_ids if table.range_count else ())


def test_indexes_have_a_direction_for_each_column_and_store_others(world: World) -> None:
    indexes = [(index, table) for table in tables_of(world) for index in table.indexes]
    assert any(index.stored for index, _ in indexes)
    assert {way for index, _ in indexes for way in index.directions} == {"ASC", "DESC"}
    for index, table in indexes:
        assert len(index.directions) == len(index.columns)
        assert not set(index.stored) & {*index.columns, *table.indexes[0].columns}
        assert set(index.stored) <= {column.name for column in table.columns}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("users", "users"),
        ("_a1", "_a1"),
        ("order", '"order"'),
        ("Users", '"Users"'),
        ("2024_sales", '"2024_sales"'),
        ("a.b", '"a.b"'),
        ('say "hi"', '"say ""hi"""'),
        ("größe", '"größe"'),
        ("", '""'),
        ("line\n", '"line\n"'),
    ],
)
def test_a_name_is_quoted_unless_it_is_plain(name: str, told: str) -> None:
    assert quoted(name) == told
    assert listed(name, "t") == f"{told}.t"


def test_reserved_words_are_quoted_and_reached_after_a_dot() -> None:
    assert len(RESERVED) > 70
    for word in RESERVED:
        assert quoted(word) == f'"{word}"'
        assert resolved(f"public.{word}") == resolved(word) == ("public", word)
        assert resolved(f"{word}.t") == ("public", f"{word}.t")


@pytest.fixture(scope="module")
def forms(world: World, serve: Any, native: Any) -> tuple[httpx.Client, Any, Any]:
    """The same world in the documented form, as v22 and as v25."""
    documented: httpx.Client = serve(Sandbox(world, require_login=False))
    return documented, native(world, generation="v22"), native(world)


def test_all_forms_tell_the_same_of_databases(world: World, forms: tuple[httpx.Client, Any, Any]) -> None:
    documented, old, new = forms
    names = [each["name"] for each in documented.get("/databases").json()["databases"]]
    assert sorted(names) == old.told("/databases/")["databases"] == new.told("/databases/")["databases"]
    metadata = {row["db_name"]: row for row in new.told("/database_metadata/", pageSize=500)["results"]}
    for name in ("movr", "bank", HERE, "Mixed_Case", "dotted.name"):
        one = documented.get(f"/databases/{name}").json()
        assert one["descriptor_id"] == str(old.told(f"/databases/{name}/")["descriptor_id"])
        told = metadata[name]
        assert (one["descriptor_id"], one["table_count"]) == (str(told["db_id"]), told["table_count"])
        assert one["store_ids"] == told["store_ids"]
        held = {(each["user"], one) for each in grants(documented, name) for one in each["privileges"]}
        assert held == {
            (each["user"], *each["privileges"]) for each in old.told(f"/databases/{name}/grants/")["grants"]
        }
        by_id = new.told(f"/grants/databases/{one['descriptor_id']}/")["results"]
        assert held == {(each["grantee"], each["privilege"]) for each in by_id}


def grants(documented: httpx.Client, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = documented.get(f"/databases/{name}/grants").json()["grants"]
    return found


@pytest.mark.slow
def test_all_forms_tell_the_same_of_tables(forms: tuple[httpx.Client, Any, Any]) -> None:
    documented, old, new = forms
    metadata = {row["table_id"]: row for row in new.told("/table_metadata/", pageSize=5000)["results"]}
    compared = 0
    for entry in documented.get("/databases/bank/tables").json()["tables"]:
        name = listed(entry["schema_name"], entry["name"])
        assert name in old.told("/databases/bank/tables/")["table_names"]
        if entry["name"].startswith("recent_"):
            continue
        one = documented.get(f"/databases/bank/tables/{entry['name']}").json()
        other = old.told(f"/databases/bank/tables/{name}/")
        row = metadata[other["descriptor_id"]]
        ids = {one["table_id"], str(other["descriptor_id"]), str(row["table_id"])}
        sizes = {one["size_bytes"], other.get("data_total_bytes", 0), row["total_data_bytes"]}
        ranges = {one["range_count"], other["range_count"], row["range_count"]}
        assert (len(ids), len(sizes), len(ranges)) == (1, 1, 1)
        assert [each["name"] for each in one["columns"]] == [each["name"] for each in other["columns"]]
        assert row["column_count"] == len(one["columns"])
        assert row["index_count"] == len(one["indexes"]) - 1
        assert {each["name"] for each in one["indexes"]} == {each["name"] for each in other["indexes"]}
        held = {(each["user"], privilege) for each in one["grants"] for privilege in each["privileges"]}
        assert held == {(each["user"], *each["privileges"]) for each in other["grants"]}
        compared += 1
    assert compared == 30


def test_a_thousand_tables_fit_on_a_page_that_comes_at_once(native: Any) -> None:
    world = World(databases=5, tables=1000)
    cluster = native(world)
    started = time.perf_counter()
    body = cluster.told("/table_metadata/", dbId=world.database_id("movr"), pageSize=1000)
    assert len(body["results"]) == body["pagination_info"]["total_results"] == 1000
    assert time.perf_counter() - started < 1
