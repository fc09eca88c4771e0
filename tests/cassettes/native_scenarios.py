"""The scenarios of the native form, for servers that answer by name alone (v22) and for those with metadata (v25)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from native_records import NOW, NativeScenario
from scenarios import ATTEMPTS, DATABASES, Expected

from crdbexport.records import Gap, GapReason, Part
from crdbexport.sandbox.faults import Body, Expire, Rule, Status
from crdbexport.sandbox.hard_names import NATIVE_NAMES, TEMPORARY_SCHEMA
from crdbexport.sandbox.native import Generation, Quirks
from crdbexport.sandbox.native.table_reply import grant_rows, table_reply
from crdbexport.sandbox.objects import TableDetails
from crdbexport.sandbox.world import World

MOVR = f"{DATABASES}/movr"
ON_PAGE = 2

# Which names of the database `names` a request can carry; none of the views answers.
ADDRESSABLE = {
    ("a", "b"),
    ("audit", "users"),
    (TEMPORARY_SCHEMA, "scratch"),
    ("public", "heap"),
    ("public", "order"),
    ("public", "order_totals"),
    ("public", "select"),
    ("public", "users"),
}


def full_export(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "everything that a healthy cluster tells: two databases with tables, and an empty one",
        World(databases=3, tables=3),
        generation=generation,
    )


def quoted_names(generation: Generation) -> NativeScenario:
    world = World(databases=0, native_names=True)
    another = _table(world, NATIVE_NAMES, "audit", "users")
    return NativeScenario(
        "names that SQL must quote, folds to others or cannot reach, and a table that answers with another one's id",
        world,
        rules=(Rule(f"{DATABASES}/names/tables/public[.]users/", _body(table_reply(another, generation, NOW))),),
        database=(NATIVE_NAMES, "Mixed_Case", "dotted.name", "node-red"),
        expected=Expected(exit_code=3, gaps=tuple(_gaps_of_names(world, generation))),
        generation=generation,
    )


def _gaps_of_names(world: World, generation: Generation) -> Iterator[Gap]:
    for each in world.tables(NATIVE_NAMES):
        if (each.schema_name, each.name) not in ADDRESSABLE:
            yield _gap(NATIVE_NAMES, "unaddressable", each.schema_name, each.name)
    yield _gap(NATIVE_NAMES, "ambiguous", "public", "users")
    yield _gap_of_view(NATIVE_NAMES, "order_totals", generation)
    for database in ("Mixed_Case", "dotted.name"):
        yield _gap(database, "unaddressable", "public", "Mixed")
    yield Gap("node-red", "tables", "unaddressable")
    if generation == "v22":
        yield from (Gap("node-red", part, "unaddressable") for part in ("details", "grants"))
    else:
        tables = world.tables("node-red")
        yield from (_gap("node-red", "unaddressable", each.schema_name, each.name) for each in tables)


def views(generation: Generation) -> NativeScenario:
    world = World(databases=1, tables=2, views=1)
    [view] = (each.name for each in world.tables("movr") if each.kind == "view")
    return NativeScenario(
        "a view whose details fail for ever (500): one more look at the end of the run, then a gap",
        world,
        expected=Expected(exit_code=3, gaps=(_gap_of_view("movr", view, generation),)),
        generation=generation,
    )


def paged_lists(generation: Generation) -> NativeScenario:
    world = World(databases=4, tables=2 * ON_PAGE)
    grants = grant_rows(world.database_grants("movr"))
    half = (len(grants) + 1) // 2
    pages = {
        f"{DATABASES}/": {"databases": sorted(world.database_names())[:ON_PAGE], "next": ON_PAGE},
        f"{MOVR}/grants/": {"grants": grants[:half], "next": half},
        f"{MOVR}/tables/": {"table_names": _listed(world)[:ON_PAGE], "next": ON_PAGE},
    }
    return NativeScenario(
        "lists that come in pages though nobody asked: next stands on every full page of tables, even on the last",
        world,
        rules=tuple(Rule(path, _body(page), hits={1}) for path, page in pages.items()),
        database=("movr",),
        generation=generation,
    )


def list_without_end(generation: Generation) -> NativeScenario:
    world = World(databases=1, tables=2 * ON_PAGE + 1)
    page = {"table_names": _listed(world)[:ON_PAGE], "next": ON_PAGE}
    lost = _listed(world)[-1].removeprefix("public.")
    return NativeScenario(
        "a list of tables whose next stands still: a gap, and the tables of the pages that were read",
        world,
        rules=(Rule(f"{MOVR}/tables/", _body(page), hits={1}),),
        expected=Expected(exit_code=3, gaps=(Gap("movr", "tables", "pagination_loop"),)),
        generation=generation,
        quirks=Quirks(next_offset="stuck"),
        untold=frozenset({("tables", "movr", "public", lost)}),
    )


def null_lists(generation: Generation) -> NativeScenario:
    # In the world of this seed, one table of movr is empty.
    world, table = World(databases=3, tables=3, seed=7), ("movr", "public", "users")
    reply = {**table_reply(_table(world, *table), generation, NOW), "indexes": None, "grants": None}
    return NativeScenario(
        "null for no grants and no indexes, nothing for no tables, and a table of no bytes whose zeros are left out",
        world,
        rules=(
            Rule(f"{MOVR}/grants/", _body({"grants": None})),
            Rule(f"{MOVR}/tables/public[.]users/", _body(reply)),
        ),
        database=("defaultdb", "movr"),
        generation=generation,
        untold=frozenset({("database_grants", "movr"), ("indexes", *table), ("table_grants", *table)}),
    )


def low_privileges(generation: Generation) -> NativeScenario:
    world = World(databases=2, tables=2)
    seen = (each.name for each in world.tables("movr") if each.name != "users")
    return NativeScenario(
        "an account of few privileges: lists are shorter and nothing says so, and the details of all tables fail (500)",
        world,
        expected=Expected(exit_code=3, gaps=tuple(_gap("movr", "server_error", "public", each, 500) for each in seen)),
        generation=generation,
        quirks=Quirks(hidden_databases=("bank",), hidden_tables=("movr.public.users",), without_zoneconfig=True),
        untold=frozenset({("databases", "bank"), ("tables", "movr", "public", "users")}),
    )


def database_dropped(generation: Generation) -> NativeScenario:
    world = World(databases=1, tables=2)
    listed = {"databases": sorted([*world.database_names(), "gone"])}
    statuses: dict[Part, int] = {"details": 500, "grants": 404, "tables": 404}
    return NativeScenario(
        "a database is listed and then gone (500, not 404): the list is read once more, and the run is complete",
        world,
        rules=(Rule(f"{DATABASES}/", _body(listed), hits={1}),),
        expected=Expected(
            gaps=tuple(Gap("gone", part, "not_found", http_status=status) for part, status in statuses.items())
        ),
        generation=generation,
        gone=("gone",),
    )


def insecure(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "a cluster without authentication, read without a login: no session is ever sent",
        World(databases=1, tables=2),
        expected=Expected(logins=0, logouts=0),
        login=False,
        generation=generation,
        quirks=Quirks(insecure=True),
    )


def session_expires(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "the session ends when tables are asked for: the client logs in once more and reads on, nothing is lost",
        World(databases=1, tables=2),
        # Nothing else is under way then, so that a replay, which never waits, meets the same 401.
        rules=(Rule(f"{MOVR}/tables/" if generation == "v22" else "/api/v2/table_metadata/", Expire(), hits={1}),),
        expected=Expected(logins=2),
        generation=generation,
    )


def cold_cache(generation: Generation) -> NativeScenario:
    world = World(databases=1, tables=2, views=1)
    [view] = (each.name for each in world.tables("movr") if each.kind == "view")
    return NativeScenario(
        "measures that were never taken: zeros are null, the details fill in, and no view is known as one",
        world,
        expected=Expected(exit_code=3, gaps=(_gap("movr", "server_error", "public", view, 500),)),
        generation=generation,
        quirks=Quirks(cold_cache=True),
        cached=frozenset({"ids"}),
    )


def metadata_fail(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "the metadata of databases fail (500) five times: everything is asked for by name, and the run is complete",
        World(databases=1, tables=2),
        rules=(Rule("/api/v2/database_metadata/", Status(500)),),
        expected=Expected(retried=ATTEMPTS - 1),
        generation=generation,
        cached=frozenset(),
    )


def table_metadata_fail(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "the metadata of tables fail (500) five times: a gap that keeps the list, and tables are asked for by name",
        World(databases=1, tables=2),
        rules=(Rule("/api/v2/table_metadata/", Status(500)),),
        expected=Expected(
            exit_code=3, gaps=(Gap("movr", "tables", "server_error", http_status=500),), retried=ATTEMPTS - 1
        ),
        generation=generation,
        cached=frozenset({"ids", "databases"}),
    )


def virtual_cluster(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "a virtual cluster, which lets nobody log in (501): the run ends and says so",
        World(databases=1, tables=2),
        expected=Expected(exit_code=4, error="this is a virtual cluster", logouts=0),
        generation=generation,
        quirks=Quirks(tenant=True),
    )


def https_only(generation: Generation) -> NativeScenario:
    return NativeScenario(
        "plain http to a cluster that wants https (307): refused before a password leaves",
        World(databases=1, tables=2),
        expected=Expected(exit_code=4, error="answered 307, a redirect to https://", logins=0, logouts=0),
        generation=generation,
        quirks=Quirks(https_only=True),
    )


def _gap(database: str, reason: GapReason, schema: str, table: str, http_status: int | None = None) -> Gap:
    return Gap(database, "details", reason, schema, table, http_status)


def _gap_of_view(database: str, view: str, generation: Generation) -> Gap:
    """A view is known by its absence from the metadata, where there are any."""
    return _gap(database, "view" if generation == "v25" else "server_error", "public", view, 500)


def _table(world: World, *names: str) -> TableDetails:
    table = world.table_in(*names)
    assert table is not None
    return table


def _listed(world: World) -> list[str]:
    """The tables of movr as the server lists them: by name, and all of them plain ones."""
    return [f"{each.schema_name}.{each.name}" for each in sorted(world.tables("movr"), key=lambda each: each.name)]


def _body(value: Any) -> Body:
    return Body(msgspec.json.encode(value))


ON_BOTH: tuple[Callable[[Generation], NativeScenario], ...] = (
    full_export,
    quoted_names,
    views,
    paged_lists,
    list_without_end,
    null_lists,
    low_privileges,
    database_dropped,
    insecure,
    session_expires,
)
# What only servers with metadata do, and what is the same of both.
ON_ONE = (cold_cache, metadata_fail, table_metadata_fail, virtual_cluster, https_only)

_GENERATIONS: tuple[Generation, ...] = ("v22", "v25")
NATIVE = {f"{each}_{make.__name__}": make(each) for make in ON_BOTH for each in _GENERATIONS}
NATIVE |= {f"v25_{make.__name__}": make("v25") for make in ON_ONE}
