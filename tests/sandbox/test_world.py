from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest

from crdbexport.sandbox.objects import TableDetails
from crdbexport.sandbox.world import World


def everything(world: World) -> list[object]:
    told: list[object] = []
    for name in world.database_names():
        told += [world.database(name), world.database_grants(name)]
        told += [(listed, world.table(name, listed.name)) for listed in world.tables(name)]
    return told


def all_tables(world: World) -> list[TableDetails]:
    found = [world.table(db, listed.name) for db in world.database_names() for listed in world.tables(db)]
    return [table for table in found if table is not None]


@pytest.fixture(scope="module")
def many_tables() -> list[TableDetails]:
    return all_tables(World(databases=20, tables=100))


def test_equal_arguments_make_equal_worlds() -> None:
    one, other = (World(databases=7, tables=15, seed=3, hostile_names=True) for _ in range(2))
    assert everything(one) == everything(other)


def test_another_seed_makes_another_world() -> None:
    assert everything(World(seed=1)) != everything(World(seed=2))


def test_an_object_is_the_same_whatever_was_asked_before() -> None:
    asked = World()
    everything(asked)
    assert asked.table("movr", "rides") == World().table("movr", "rides")


@pytest.mark.parametrize(("databases", "tables"), [(0, 12), (1, 3), (4, 12), (9, 40), (6, 0)])
def test_a_world_holds_the_databases_and_tables_it_was_asked_for(databases: int, tables: int) -> None:
    world = World(databases, tables)
    names = world.database_names()
    regular = [name for name in names if name != "system"]
    assert len(set(regular)) == databases
    assert names[-1] == "system"
    for name in regular:
        expected = 0 if name in {"defaultdb", "postgres"} else tables
        database = world.database(name)
        assert database is not None
        assert database.table_count == expected == len(list(world.tables(name)))


def test_the_first_databases_have_familiar_names() -> None:
    assert World(6).database_names() == [
        "movr",
        "bank",
        "defaultdb",
        "postgres",
        "bank_04",
        "shop_05",
        "system",
    ]
    movr = [table.name for table in World().tables("movr")]
    assert {"users", "vehicles", "rides", "promo_codes"} < set(movr)
    assert {"users", "descriptor", "zones"} < {table.name for table in World().tables("system")}


def test_some_tables_are_in_other_schemas() -> None:
    schemas = {table.schema_name for table in World().tables("movr")}
    assert schemas == {"public", "audit", "reporting"}


def test_every_listed_table_is_found_by_name_and_agrees_with_its_listing() -> None:
    world = World(databases=9, tables=60)
    listings = [(name, listed) for name in world.database_names() for listed in world.tables(name)]
    assert len(listings) > 7 * 60
    for name, listed in listings:
        table = world.table(name, listed.name)
        assert table is not None
        assert (
            table.database_name,
            table.table_name,
            table.schema_name,
            table.table_id,
            table.size_bytes,
        ) == (
            name,
            listed.name,
            listed.schema_name,
            listed.table_id,
            listed.size_bytes,
        )


@pytest.mark.parametrize("name", ["", "nope", "movr_00", "movr_4", "bank_99", "shop_04", "defaultdb_02", "movr_06 "])
def test_a_database_that_is_not_listed_does_not_exist(name: str) -> None:
    world = World(9)
    assert name not in world.database_names()
    assert world.database(name) is None
    assert world.table(name, "users") is None
    assert not list(world.tables(name))
    assert not world.database_grants(name)


@pytest.mark.parametrize("name", ["", "nope", "users_0000", "rides_0007", "users_12", "users_0012", "accounts", "0"])
def test_a_table_that_is_not_listed_does_not_exist(name: str) -> None:
    world = World()
    assert name not in {table.name for table in world.tables("movr")}
    assert world.table("movr", name) is None


def test_descriptor_ids_are_unique_across_the_world() -> None:
    world = World(databases=9, tables=30, hostile_names=True)
    names = world.database_names()
    ids = [world.database_id(name) for name in names]
    ids += [listed.table_id for name in names for listed in world.tables(name)]
    assert len(ids) > 7 * 30
    assert None not in ids
    assert len(set(ids)) == len(ids)


def test_a_databases_size_is_the_sum_of_its_tables() -> None:
    world = World()
    database = world.database("bank")
    assert database is not None
    assert database.size_bytes == sum(table.size_bytes for table in world.tables("bank")) > 0


def test_sizes_are_skewed_and_ranges_follow_them(many_tables: list[TableDetails]) -> None:
    sizes = sorted(table.size_bytes for table in many_tables)
    median = sizes[len(sizes) // 2]
    assert sizes[0] == 0
    assert sizes.count(0) < len(sizes) / 10
    assert 2**20 < median < 64 * 2**20
    assert sizes[-1] > 1000 * median
    by_size = sorted(many_tables, key=lambda table: table.size_bytes)
    ranges = [table.range_count for table in by_size]
    assert ranges == sorted(ranges)
    assert (ranges[0], ranges[-1] > 100) == (1, True)


def test_tables_are_well_formed_and_varied(many_tables: list[TableDetails]) -> None:
    assert {len(table.indexes) for table in many_tables} == {1, 2, 3, 4}
    widths = {len(table.columns) for table in many_tables if table.database_name != "system"}
    assert (min(widths), max(widths)) == (3, 25)
    types = {column.type for table in many_tables for column in table.columns}
    assert {
        "UUID",
        "STRING",
        "INT8",
        "TIMESTAMPTZ",
        "DECIMAL(10,2)",
        "STRING[]",
        "JSONB",
        "BOOL",
        "BYTES",
    } < types
    for table in many_tables:
        nullable = {column.name: column.nullable for column in table.columns}
        assert len(nullable) == len(table.columns)
        primary = table.indexes[0]
        assert (primary.name, primary.unique) == (f"{table.table_name}_pkey", True)
        assert not any(nullable[name] for name in primary.columns)
        assert len({index.name for index in table.indexes}) == len(table.indexes)
        assert all(set(index.columns) <= nullable.keys() for index in table.indexes)


def test_grants_differ_from_table_to_table_but_always_name_the_usual_roles() -> None:
    tables = [table for table in all_tables(World(tables=60)) if table.database_name != "system"]
    for table in tables:
        held = {grant.user: grant.privileges for grant in table.grants}
        assert len(held) == len(table.grants)
        assert (held["admin"], held["root"], held["readonly"]) == (("ALL",), ("ALL",), ("SELECT",))
        assert len(held["app_user"]) > 1
    assert len({table.grants for table in tables}) > 3


def test_a_huge_world_starts_at_once_and_is_never_held() -> None:
    tracemalloc.start()
    started = time.perf_counter()
    world = World(databases=1000, tables=10_000)
    first = list(itertools.islice(world.tables("movr_999"), 3))
    last = world.table("movr_999", "vehicle_location_histories_9999")
    elapsed = time.perf_counter() - started
    for _ in itertools.islice(world.tables("movr_999"), 2_000):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(first) == 3
    assert last is not None
    assert elapsed < 0.1
    assert peak_bytes < 200_000


def test_hostile_names_are_listed_and_hold_tables() -> None:
    world = World(hostile_names=True)
    names = world.database_names()
    assert len(set(names)) == len(names)
    assert {"a/b", "50%", "emoji 🚀", "line\nbreak", 'quote"inside', ".", ".."} < set(names)
    assert not {"a/b", ".", "twins"} & set(World().database_names())
    addressable = {table.name for name in names if name not in {".", ".."} for table in world.tables(name)}
    assert {".", "a/b", "?q#f", "plain"} < addressable


def test_of_two_tables_of_one_name_the_first_listed_answers() -> None:
    world = World(hostile_names=True)
    twins = [table for table in world.tables("twins") if table.name == "orders"]
    answered = world.table("twins", "orders")
    assert [table.schema_name for table in twins] == ["public", "reporting"]
    assert answered is not None
    assert (answered.schema_name, answered.table_id) == ("public", twins[0].table_id)


def test_a_negative_world_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        World(databases=-1)
