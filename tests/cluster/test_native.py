from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from crdbexport import ExportConfig
from crdbexport.checking import look
from crdbexport.errors import UnexpectedServerError
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.native.table_reply import SENSITIVE, index_rows
from crdbexport.sandbox.world import World
from tests.cluster.native_reading import Read, Row

Serve = Callable[[ClusterApp], str]

BANK = "/api/v2/databases/bank"
ADDRESSABLE = {
    ("public", "users"),
    ("public", "order"),
    ("public", "select"),
    ("public", "heap"),
    ("a", "b"),
    ("audit", "users"),
    ("pg_temp_1700000000000000000_1", "scratch"),
}
VIEWS = {("public", "order_totals")}


def v22(world: World | None = None, *rules: Rule, latency: float = 0.0, **quirks: Any) -> NativeSandbox:
    faults, made = Faults(rules=rules), Quirks(**quirks)
    world = world or World(2, 6)
    return NativeSandbox(world, generation="v22", faults=faults, quirks=made, latency_seconds=latency)


def hits(app: ClusterApp, path: str) -> int:
    return app.hits[f"/api/v2/{path}"]


def body(value: Any) -> Body:
    return Body(json.dumps(value).encode())


def details(**changes: Any) -> Row:
    return {"descriptor_id": 999, "grants": None, "columns": None, "indexes": None, **changes}


def test_every_addressable_table_is_told_as_it_is_and_every_other_is_a_gap(read: Read) -> None:
    world = World(native_names=True)
    told = read(v22(world), database=("names",))
    names = {(each.schema_name, each.name) for each in world.tables("names")}
    rows = {(row["schema_name"], row["table_name"]): row for row in told.rows("tables")}
    assert rows.keys() == names
    assert {key for key, row in rows.items() if row["details"] == "fetched"} == ADDRESSABLE
    for schema, name in ADDRESSABLE:
        table = world.table_in("names", schema, name)
        assert table is not None
        where = {"schema_name": schema, "table_name": name}
        row = rows[schema, name]
        measures = [row["size_bytes"], row["live_bytes"], row["range_count"]]
        assert [row["table_id"], *measures] == [
            table.table_id,
            table.size_bytes or None,
            table.live_bytes or None,
            table.range_count,
        ]
        assert [
            (each["column_name"], each["ordinal_position"], each["data_type"], each["is_nullable"], each["is_hidden"])
            for each in told.rows("columns", **where)
        ] == [(each.name, place, each.type, each.nullable, each.hidden) for place, each in enumerate(table.columns, 1)]
        assert [(each["grantee"], each["privilege_type"]) for each in told.rows("table_grants", **where)] == [
            (grant.user, privilege) for grant in table.grants for privilege in grant.privileges
        ]
    reasons = {key[2:]: reason for key, reason in told.gaps.items()}
    assert reasons.keys() == names - ADDRESSABLE
    assert {key for key, reason in reasons.items() if reason == "server_error"} == VIEWS
    assert set(reasons.values()) == {"unaddressable", "server_error"}
    assert any(row["is_hidden"] for row in told.rows("columns"))


def test_index_rows_become_indexes_whatever_their_order(read: Read) -> None:
    world = World(1, 12)
    told = read(v22(world), ("indexes",))
    assert told.gaps == {}
    seen = 0
    for listed in world.tables("movr"):
        table = world.table_in("movr", listed.schema_name, listed.name)
        assert table is not None
        assert index_rows(table) != sorted(index_rows(table), key=lambda row: (row["name"], row["seq"]))
        rows = told.rows("indexes", schema_name=listed.schema_name, table_name=listed.name)
        assert [row["index_name"] for row in rows] == sorted(index.name for index in table.indexes)
        primary, others = table.indexes[0], {index.name: index for index in table.indexes}
        for row in rows:
            index = others[row["index_name"]]
            stored = [c.name for c in table.columns if c.name not in primary.columns]
            assert (row["is_unique"], row["column_names"]) == (index.unique, list(index.columns))
            assert row["directions"] == list(index.directions)
            assert row["stored_columns"] == (stored if index is primary else list(index.stored))
            seen += index is not primary and bool(index.stored)
    assert seen


def test_a_database_tells_its_id_alone(read: Read) -> None:
    world = World(2, 2)
    told = read(v22(world), ("databases",))
    assert told.rows("databases") == [
        {
            "database_name": name,
            "database_id": world.database_id(name),
            "size_bytes": None,
            "replicated_bytes": None,
            "table_count": None,
            "store_ids": None,
            "stats_as_of": None,
            "details": "fetched",
        }
        for name in ("bank", "movr")
    ]


def test_what_old_servers_do_not_tell_is_null(read: Read) -> None:
    app = v22(World(2, 1), Rule(f"{BANK}/tables/public[.]accounts/", body(details())))
    [row] = read(app, database=("bank",)).rows("tables")
    assert (row["table_id"], row["details"], row["kind"]) == (999, "fetched", None)
    told = ("size_bytes", "replicated_bytes", "live_bytes", "range_count", "replica_count", "store_ids", "stats_as_of")
    assert {row[name] for name in told} == {None}


def test_grants_in_pieces_are_merged_and_null_is_none(read: Read) -> None:
    pieces = [{"user": "a", "privileges": ["ALL"]}, {"user": "a", "privileges": ["ALL", "CONNECT"]}, {"user": "b"}]
    rules = [
        Rule(f"{BANK}/grants/", body({"grants": pieces})),
        Rule("/api/v2/databases/movr/grants/", body({"grants": None})),
    ]
    told = read(v22(None, *rules), ("database_grants",))
    rows = [(row["database_name"], row["grantee"], row["privilege_type"]) for row in told.rows("database_grants")]
    assert (rows, told.gaps) == ([("bank", "a", "ALL"), ("bank", "a", "CONNECT")], {})


def test_an_empty_database_is_no_gap(read: Read) -> None:
    told = read(v22(World(4, 2)), database=("defaultdb", "postgres"))
    assert [row["database_name"] for row in told.rows("databases")] == ["defaultdb", "postgres"]
    assert (told.gaps, told.rows("tables")) == ({}, [])


def test_databases_without_a_route_are_listed_and_not_asked_for(read: Read) -> None:
    app = v22(World(native_names=True))
    told = read(app)
    without = {"node-red", "data lake", "größe", "cost$centre"}
    assert {row["database_name"] for row in told.rows("databases", details="unaddressable")} == without
    assert {key[0] for key in told.gaps if key[1] == "node-red"} == {"details", "grants", "tables"}
    assert {"Mixed_Case", "2024_archive", "dotted.name"} <= {
        row["database_name"] for row in told.rows("databases", details="fetched")
    }
    paths = [path.removeprefix("/api/v2/") for path in app.hits]
    assert not [path for path in paths if "%" in path or "-" in path]
    assert all(path.endswith("/") for path in paths if path not in ("health", "databases"))
    assert [path for path in paths if "Users" in path or "ORDERS" in path or "Mixed/" in path] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"database or table not found\n", "not_found"),
        (b"table not found", "not_found"),
        (b"404 page not found\n", "unaddressable"),
    ],
)
def test_the_text_of_a_404_tells_what_it_means(read: Read, text: bytes, reason: str) -> None:
    app = v22(None, Rule(f"{BANK}/tables/public[.]accounts/", Status(404, body=text)))
    told = read(app, database=("bank",))
    assert told.gaps == {("details", "bank", "public", "accounts"): reason}
    assert [row["details"] for row in told.rows("tables", table_name="accounts")] == [reason]


def test_a_dropped_database_is_listed_anew_before_it_is_called_an_outage(read: Read) -> None:
    rules = [
        Rule(f"{BANK}/", Status(500)),
        Rule("/api/v2/databases/", body({"databases": ["movr"]}), hits={2}),
    ]
    app = v22(None, *rules)
    told = read(app, ("databases",))
    assert told.gaps == {("details", "bank", None, None): "not_found"}
    assert (hits(app, "databases/bank/"), hits(app, "databases/")) == (1, 2)


def test_a_database_that_is_still_listed_is_tried_again(read: Read) -> None:
    app = v22(None, Rule(f"{BANK}/", Status(500), hits={1, 2}))
    told = read(app, ("databases",))
    assert (told.gaps, hits(app, "databases/bank/")) == ({}, 3)
    app = v22(None, Rule(f"{BANK}/", Status(500)))
    assert read(app, ("databases",)).gaps == {("details", "bank", None, None): "server_error"}


def test_pages_that_come_unasked_are_followed_to_the_empty_one(read: Read) -> None:
    world = World(2, 6)
    names = sorted(f"{each.schema_name}.{each.name}" for each in world.tables("bank"))
    by_name = sorted(world.tables("bank"), key=lambda each: each.name)
    first = [f"{each.schema_name}.{each.name}" for each in by_name[:2]]
    app = v22(world, Rule(f"{BANK}/tables/", body({"table_names": first, "next": 2}), hits={1}))
    told = read(app, ("tables",), ("bank",))
    assert [f"{row['schema_name']}.{row['table_name']}" for row in told.rows("tables")] == names
    # Three full pages, and the empty one that the last of them announces.
    assert (told.gaps, hits(app, "databases/bank/tables/")) == ({}, 4)


@pytest.mark.parametrize("told_next", ["stuck", "cycling"])
def test_pages_without_an_end_are_a_gap_that_keeps_what_was_read(read: Read, told_next: str) -> None:
    world = World(2, 6)
    by_name = sorted(world.tables("bank"), key=lambda each: each.name)
    first = [f"{each.schema_name}.{each.name}" for each in by_name[:2]]
    rule = Rule(f"{BANK}/tables/", body({"table_names": first, "next": 2}), hits={1})
    app = v22(world, rule, next_offset=told_next)
    told = read(app, ("tables",), ("bank",))
    assert told.gaps == {("tables", "bank", None, None): "pagination_loop"}
    assert len(told.rows("tables")) == (6 if told_next == "cycling" else 4)
    assert {row["details"] for row in told.rows("tables")} == {"fetched"}


def test_a_list_that_repeats_itself_under_ever_new_offsets_is_a_loop(read: Read) -> None:
    pages = [
        Rule(f"{BANK}/tables/", body({"table_names": ["public.accounts"], "next": each}), hits={each})
        for each in (1, 2, 3)
    ]
    app = v22(None, *pages)
    told = read(app, ("tables",), ("bank",))
    assert told.gaps == {("tables", "bank", None, None): "pagination_loop"}
    assert hits(app, "databases/bank/tables/") == 2


def test_a_list_of_databases_without_an_end_ends_the_run(read: Read) -> None:
    rule = Rule("/api/v2/databases/", body({"databases": ["bank"], "next": 1}))
    with pytest.raises(UnexpectedServerError, match="a list without an end"):
        read(v22(None, rule))


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b'{"columns": null, "indexes": null, "grants": null}',
        json.dumps(details(columns=[{"type": "INT8"}])).encode(),
        json.dumps(details(indexes=[{"name": "i"}])).encode(),
        b"An internal server error has occurred.",
    ],
)
def test_details_that_do_not_fit_are_a_bad_body(read: Read, answer: bytes) -> None:
    told = read(v22(None, Rule(f"{BANK}/tables/public[.]accounts/", Body(answer))), database=("bank",))
    assert told.gaps == {("details", "bank", "public", "accounts"): "bad_body"}


def test_a_listed_name_that_cannot_be_parsed_is_a_gap_of_the_list_and_costs_no_other(read: Read) -> None:
    told = read(
        v22(None, Rule(f"{BANK}/tables/", body({"table_names": ["public.accounts", "odd"]}))), database=("bank",)
    )
    assert [row["table_name"] for row in told.rows("tables")] == ["accounts"]
    assert told.gaps == {("tables", "bank", None, None): "bad_body"}


def test_two_names_that_tell_of_one_table_are_not_both_believed(read: Read) -> None:
    world = World(2, 6)
    first, second = sorted((each.schema_name, each.name) for each in world.tables("bank"))[:2]
    stolen = world.table_in("bank", *first)
    assert stolen is not None
    reply = details(descriptor_id=stolen.table_id, columns=[{"name": "of_another", "type": "INT8"}])
    rule = Rule(f"{BANK}/tables/{second[0]}[.]{second[1]}/", body(reply))
    told = read(v22(world, rule), database=("bank",))
    assert told.gaps == {("details", "bank", *second): "ambiguous"}
    assert told.rows("columns", column_name="of_another") == []
    assert [row["details"] for row in told.rows("tables", table_name=first[1])] == ["fetched"]


def test_views_get_one_more_look_at_the_end_and_no_retries(read: Read) -> None:
    app = v22(World(2, 6, views=2))
    told = read(app)
    views = [row for row in told.rows("tables") if row["table_name"].startswith("recent_")]
    assert len(views) == 4
    assert told.rows("tables")[-4:] == views
    assert views == sorted(views, key=lambda row: (row["database_name"], row["schema_name"], row["table_name"]))
    assert {row["details"] for row in views} == {"server_error"}
    paths = [f"databases/{row['database_name']}/tables/public.{row['table_name']}/" for row in views]
    assert [hits(app, path) for path in paths] == [2] * 4
    assert len(told.gaps) == 4
    fetched = [row for row in told.rows("tables") if row["details"] == "fetched"]
    assert len(fetched) == 12


def test_more_views_in_a_row_than_failures_are_borne_end_no_run(read: Read) -> None:
    told = read(v22(World(1, 1, views=30)), ("columns",))
    assert list(told.gaps.values()) == ["server_error"] * 30
    assert told.rows("columns")


def test_what_is_readable_at_the_second_look_is_no_gap(read: Read) -> None:
    world, path = World(2, 6), "databases/bank/tables/public.accounts/"
    app = v22(world, Rule(f"/api/v2/{path.replace('.', '[.]')}", Status(500), hits={1}))
    told = read(app)
    assert (told.gaps, hits(app, path)) == ({}, 2)
    assert told.rows("tables")[-1]["table_name"] == "accounts"
    table = world.table_in("bank", "public", "accounts")
    assert table is not None
    assert [row["column_name"] for row in told.rows("columns", table_name="accounts")] == [
        c.name for c in table.columns
    ]
    assert told.told[-1][1]["table_name"] == "accounts"


def test_the_second_look_does_not_believe_the_id_of_another_table_either(read: Read) -> None:
    world = World(2, 6)
    stolen = world.table_in("bank", "public", "transfers") or next(
        world.table_in("bank", each.schema_name, each.name) for each in world.tables("bank") if each.name != "accounts"
    )
    assert stolen is not None
    path = f"{BANK}/tables/public[.]accounts/"
    rules = [Rule(path, Status(500), hits={1}), Rule(path, body(details(descriptor_id=stolen.table_id)))]
    assert read(v22(world, *rules)).gaps == {("details", "bank", "public", "accounts"): "ambiguous"}


@pytest.mark.parametrize(("concurrency", "at_once"), [(8, 2), (1, 1)])
def test_details_are_asked_for_two_at_a_time(read: Read, concurrency: int, at_once: int) -> None:
    app = v22(World(1, 12), latency=0.005)
    told = read(app, ("columns",), concurrency=concurrency)
    assert (told.gaps, app.max_in_flight) == ({}, at_once)


def test_a_check_looks_twice_at_what_fails(serve: Serve, settings: dict[str, Any]) -> None:
    app = v22(World(2, 6), offline_tables=["bank.public.accounts"])
    result = asyncio.run(look(ExportConfig(**{**settings, "url": (serve(app),)})))
    assert [(gap.database, gap.table, gap.reason) for gap in result.gaps] == [("bank", "accounts", "server_error")]
    assert (result.dialect, hits(app, "databases/bank/tables/public.accounts/")) == ("native", 2)
    # Health, login, logout; two lists of databases; three parts of each of two; twelve tables.
    assert result.run_requests == 3 + 2 + 2 * 3 + 12


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_what_may_hold_data_of_users_is_in_no_byte_that_is_kept_or_published(
    generation: Any, serve: Serve, export: Callable[..., Any], tmp_path: Path
) -> None:
    app = NativeSandbox(World(native_names=True), generation=generation)
    url = serve(app)
    header = {"X-Cockroach-API-Session": app.open_session()}
    answer = httpx.get(f"{url}/api/v2/databases/names/tables/public.users/", headers=header, trust_env=False)
    assert SENSITIVE in answer.text
    sinks = {"lines": {"type": "jsonl", "target": str(tmp_path / "lake")}}
    report = export(url, sinks=sinks, report=str(tmp_path / "report.json"))
    assert report.streams["columns"].extracted > 0
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"created_at" in each or b"column_name" in each for each in contents)
    assert not [each for each in contents if SENSITIVE.encode() in each]
