from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing, nullcontext
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from crdbexport.cluster.dialects.documented import DocumentedDialect
from crdbexport.cluster.extractor import Extractor
from crdbexport.cluster.session import Session
from crdbexport.errors import ClusterRefusedError, ClusterUnavailableError, ConfigError, UnexpectedServerError
from crdbexport.records import STREAMS, Gap
from crdbexport.retry import RetryPolicy
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Delay, Disconnect, Faults, Rule, Status, Truncate
from crdbexport.sandbox.world import World
from crdbexport.selection import Selection

Serve = Callable[[Sandbox], str]

LIST = "/api/v2/databases"
ALL = Selection()
EVERYTHING = tuple(STREAMS)
# The place of the field in a row.
DETAILS = {
    name: [field.name for field in STREAMS[name].own_fields].index("details") for name in ("databases", "tables")
}


class JitterySandbox(Sandbox):
    """A sandbox whose answers overtake each other."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(random.uniform(0, 0.003))
        await super().__call__(scope, receive, send)


def test_every_object_is_told_in_order_with_everything_that_belongs_to_it(serve: Serve, extract: Any) -> None:
    world = World(databases=5, tables=8)
    read = extract(serve(Sandbox(world)))
    names = sorted(set(world.database_names()) - {"system"})
    databases = [world.database(name) for name in names]
    expected_tables = sorted((name, each.schema_name, each.name) for name in names for each in world.tables(name))
    details = [world.table(database, table) for database, _, table in expected_tables]

    assert [row[0] for row in read.rows("databases")] == [each.name for each in databases if each]
    assert [row[1:5] for row in read.rows("databases")] == [
        (each.id, each.size_bytes, None, each.table_count) for each in databases if each
    ]
    assert read.rows("database_grants") == [
        (name, grant.user, privilege)
        for name in names
        for grant in world.database_grants(name)
        for privilege in grant.privileges
    ]
    assert [row[:3] for row in read.rows("tables")] == expected_tables
    assert [(row[3], row[5], row[8]) for row in read.rows("tables")] == [
        (each.table_id, each.size_bytes, each.range_count) for each in details if each
    ]
    assert read.rows("columns") == [
        (*key, column.name, position, column.type, column.nullable, None, None, None)
        for key, table in zip(expected_tables, details, strict=True)
        for position, column in enumerate(table.columns if table else (), start=1)
    ]
    assert read.rows("indexes") == [
        (*key, index.name, index.unique, list(index.columns), None, None)
        for key, table in zip(expected_tables, details, strict=True)
        for index in (table.indexes if table else ())
    ]
    assert read.rows("table_grants") == [
        (*key, grant.user, privilege)
        for key, table in zip(expected_tables, details, strict=True)
        for grant in (table.grants if table else ())
        for privilege in grant.privileges
    ]
    assert (read.gaps, read.counts.tables_done) == ([], len(expected_tables))
    assert {row[place] for stream, place in DETAILS.items() for row in read.rows(stream)} == {"fetched"}


@pytest.mark.slow
def test_the_order_is_the_same_whatever_the_concurrency(serve: Serve, extract: Any) -> None:
    told = {}
    for concurrency in (1, 4, 16):
        rules = [Rule(f"{LIST}/[a-z]+/tables/[a-z]*s", Status(503), hits={1}), Rule(f"{LIST}/b.*/grants", Status(403))]
        app = JitterySandbox(World(databases=4, tables=6), faults=Faults(rules=rules))
        read = extract(serve(app), concurrency=concurrency)
        assert all(rule.fired for rule in rules)
        assert app.max_in_flight <= concurrency
        told[concurrency] = (read.told, read.gaps)
    assert told[1] == told[4] == told[16]
    assert len(told[1][0]) > 100


def test_a_database_is_told_before_its_tables_and_its_tables_before_the_next(serve: Serve, extract: Any) -> None:
    read = extract(serve(Sandbox(World(databases=3, tables=4))), streams=("databases", "tables"))
    assert [(stream, row[0]) for stream, row in read.told] == [
        ("databases", "bank"),
        *[("tables", "bank")] * 4,
        ("databases", "defaultdb"),
        ("databases", "movr"),
        *[("tables", "movr")] * 4,
    ]


def test_names_are_ordered_by_their_code_points(serve: Serve, scripted: Any, extract: Any) -> None:
    names = ["é", "z", "Z", "a10", "a9", "\U0001f680", "\uffff", "A", "e"]
    listed = [{"name": name} for name in names]
    answers = {"databases": {"databases": listed}, "databases/A": {"size_bytes": 1}}
    read = extract(serve(scripted(answers)), no_login=True, streams=("databases",))
    assert [row[0] for row in read.rows("databases")] == sorted(names)
    assert sorted(names)[-2:] == ["\uffff", "\U0001f680"]


@pytest.mark.parametrize(
    ("action", "reason", "status"),
    [
        (Status(403), "forbidden", 403),
        (Status(404), "not_found", 404),
        (Status(500), "server_error", 500),
        (Body(b"[]"), "bad_body", 200),
        (Truncate(), "bad_body", 200),
        (Disconnect(), "bad_body", None),
    ],
    ids=["403", "404", "500", "other shape", "cut", "disconnect"],
)
def test_whatever_cannot_be_read_is_a_gap_and_everything_else_is_read(
    action: Any, reason: str, status: int | None, serve: Serve, record: Any, extract: Any
) -> None:
    world = World(databases=3, tables=3)
    rules = [
        Rule(f"{LIST}/bank", action),
        Rule(f"{LIST}/defaultdb/tables", action),
        Rule(f"{LIST}/movr/grants", action),
        Rule(f"{LIST}/movr/tables/users", action),
    ]
    whole, holed = extract(serve(Sandbox(world))), extract(serve(record(*rules, world=world)))
    assert all(rule.fired for rule in rules)
    assert holed.gaps == [
        Gap("bank", "details", reason, http_status=status),
        Gap("defaultdb", "tables", reason, http_status=status),
        Gap("movr", "grants", reason, http_status=status),
        Gap("movr", "details", reason, "public", "users", status),
    ]
    assert (whole.counts.details_fetched, holed.counts.details_fetched) == (15, 11)

    lost = [each for each in whole.told if each not in holed.told]
    assert {(stream, row[0]) for stream, row in lost if stream in ("databases", "database_grants")} == {
        ("databases", "bank"),
        ("database_grants", "movr"),
    }
    assert {(stream, *row[:3]) for stream, row in lost if stream not in ("databases", "database_grants")} == {
        (stream, "movr", "public", "users") for stream in ("tables", "columns", "indexes", "table_grants")
    }
    assert [row for row in holed.rows("database_grants") if row[0] == "movr"] == []
    assert [
        (stream, row[0], row[DETAILS[stream]]) for stream, row in holed.told if (stream, row) not in whole.told
    ] == [
        ("databases", "bank", reason),
        ("tables", "movr", reason),
    ]


def test_a_record_without_details_keeps_what_its_listing_told(serve: Serve, record: Any, extract: Any) -> None:
    world = World(databases=1, tables=3)
    rules = [Rule(f"{LIST}/movr", Status(403)), Rule(f"{LIST}/movr/tables/.*", Status(403))]
    read = extract(serve(record(*rules, world=world)))
    nothing, unasked = (None,) * 5, (None,) * 3
    assert read.rows("databases") == [("movr", world.database_id("movr"), *nothing, "forbidden")]
    listed = {each.name: each for each in world.tables("movr")}
    assert read.rows("tables") == [
        ("movr", "public", name, table.table_id, None, table.size_bytes, *(None,) * 6, "forbidden", *unasked)
        for name, table in sorted(listed.items())
    ]
    assert read.rows("columns") == []


@pytest.mark.slow
def test_a_late_answer_is_a_gap(serve: Serve, record: Any, extract: Any) -> None:
    rule = Rule(f"{LIST}/movr/grants", Delay(5))
    read = extract(serve(record(rule)), timeout=1.0, retry=RetryPolicy(attempts=1), streams=("database_grants",))
    assert read.gaps == [Gap("movr", "grants", "timeout")]
    assert rule.fired == 1


def test_a_gap_is_logged_with_the_object_it_concerns(
    serve: Serve, record: Any, extract: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="crdbexport"):
        extract(serve(record(Rule(f"{LIST}/movr/tables/users", Status(403)))))
    (gap,) = [each for each in caplog.records if getattr(each, "event", "") == "gap"]
    assert '"movr"."public"."users"' in gap.getMessage()
    assert "forbidden" in gap.getMessage()


def test_duplicates_are_merged_and_the_first_of_them_counts(serve: Serve, scripted: Any, extract: Any) -> None:
    column = {"name": "id", "type": "INT8", "nullable": False}
    index = {"name": "pk", "columns": ["id"], "unique": True}
    grant = {"user": "a", "privileges": ["SELECT", "ALL", "SELECT"]}
    read = extract(
        serve(
            scripted(
                {
                    "databases": {"databases": [{"name": "d", "id": 1}, {"name": "d", "id": 2}]},
                    "databases/d": {},
                    "databases/d/grants": {"grants": [grant, {"user": "b", "privileges": ["ALL"]}, grant]},
                    "databases/d/tables": {
                        "tables": [
                            {"name": "t", "schema_name": "s", "table_id": 1},
                            {"name": "t", "schema_name": "s", "table_id": 2},
                        ]
                    },
                    "databases/d/tables/t": {
                        "columns": [column, {**column, "name": "x"}, {**column, "type": "STRING"}],
                        "indexes": [index, {**index, "unique": False}],
                        "grants": [grant, grant],
                    },
                }
            )
        ),
        no_login=True,
    )
    assert [row[:2] for row in read.rows("databases")] == [("d", 1)]
    assert read.rows("database_grants") == [("d", "a", "SELECT"), ("d", "a", "ALL"), ("d", "b", "ALL")]
    assert [row[:4] for row in read.rows("tables")] == [("d", "s", "t", 1)]
    assert [row[3:6] for row in read.rows("columns")] == [("id", 1, "INT8"), ("x", 2, "INT8")]
    assert [row[3:5] for row in read.rows("indexes")] == [("pk", True)]
    assert read.rows("table_grants") == [("d", "s", "t", "a", "SELECT"), ("d", "s", "t", "a", "ALL")]


def test_details_win_over_the_listing_where_they_tell_something(serve: Serve, scripted: Any, extract: Any) -> None:
    empty: dict[str, Any] = {"columns": [], "indexes": [], "grants": []}
    listed = [
        {"name": "a", "schema_name": "s", "table_id": 1, "size_bytes": 10},
        {"name": "b", "schema_name": "s", "table_id": 2, "size_bytes": 20},
    ]
    answers = {
        "databases": {"databases": [{"name": "d", "id": 5}]},
        "databases/d": {},
        "databases/d/grants": {"grants": []},
        "databases/d/tables": {"tables": listed},
        "databases/d/tables/a": {**empty, "size_bytes": 0, "range_count": 3},
        "databases/d/tables/b": {**empty, "table_id": 2},
    }
    read = extract(serve(scripted(answers)), no_login=True)
    assert [row[1] for row in read.rows("databases")] == [5]
    assert [(row[3], row[5], row[8]) for row in read.rows("tables")] == [(1, 0, 3), (2, 20, None)]


def test_a_shared_name_is_read_for_the_one_that_answers_and_a_gap_for_the_other(serve: Serve, extract: Any) -> None:
    world = World(databases=0, tables=0, hostile_names=True)
    read = extract(serve(Sandbox(world)), selection=Selection(include=("twins",)))
    assert [(*row[:3], row[DETAILS["tables"]]) for row in read.rows("tables")] == [
        ("twins", "public", "customers", "fetched"),
        ("twins", "public", "orders", "fetched"),
        ("twins", "reporting", "orders", "ambiguous"),
    ]
    assert read.gaps == [Gap("twins", "details", "ambiguous", "reporting", "orders")]


def test_hard_names_are_read_and_those_that_no_url_carries_are_gaps(serve: Serve, extract: Any) -> None:
    world = World(databases=0, tables=0, hostile_names=True)
    read = extract(serve(Sandbox(world)))
    unaddressable = {gap.database for gap in read.gaps if gap.reason == "unaddressable" and not gap.table}
    assert unaddressable == {".", ".."}
    assert len([gap for gap in read.gaps if gap.database == "."]) == 3
    assert {row[0] for row in read.rows("columns")} == set(world.database_names()) - {".", "..", "system"}


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), ["bank", "defaultdb", "movr"]),
        (Selection(include=("system",)), ["system"]),
        (Selection(include=("*", "system")), ["bank", "defaultdb", "movr", "system"]),
        (Selection(include=("*",)), ["bank", "defaultdb", "movr"]),
        (Selection(exclude=("ban?",)), ["defaultdb", "movr"]),
        (Selection(include=("m*", "bank"), exclude=("movr",)), ["bank"]),
    ],
)
def test_only_what_is_selected_is_asked_for(
    selection: Selection, names: list[str], serve: Serve, record: Any, extract: Any
) -> None:
    app = record(world=World(databases=3, tables=2))
    read = extract(serve(app), selection=selection)
    assert [row[0] for row in read.rows("databases")] == names
    assert {path.split("/")[1] for path in app.paths if path.startswith("databases/")} == set(names)
    assert read.counts.databases_listed == len(names)


@pytest.mark.parametrize(
    ("stream", "asked"),
    [
        ("databases", {"databases/movr"}),
        ("database_grants", {"databases/movr/grants"}),
        ("columns", {"databases/movr/tables", "databases/movr/tables/users", "databases/movr/tables/vehicles"}),
    ],
)
def test_only_what_the_streams_need_is_asked_for(
    stream: str, asked: set[str], serve: Serve, record: Any, extract: Any
) -> None:
    app = record(world=World(databases=1, tables=2))
    read = extract(serve(app), streams=(stream,))
    assert {path for path in app.paths if path.startswith("databases/")} == asked
    assert {name for name, _ in read.told} == {stream}
    assert read.counts.details_wanted == len(asked)


def test_a_database_that_is_named_and_absent_is_a_configuration_error(serve: Serve, record: Any, extract: Any) -> None:
    app = record()
    with pytest.raises(ConfigError, match='--database "nobody" matches none of the databases that the account sees'):
        extract(serve(app), selection=Selection(include=("movr", "nobody")))
    assert app.paths[2:] == ["databases", "logout/"]


def test_a_pattern_that_matches_nothing_is_warned_about(
    serve: Serve, extract: Any, caplog: pytest.LogCaptureFixture
) -> None:
    read = extract(serve(Sandbox(World(2, 1))), selection=Selection(include=("movr", "x*")))
    assert [row[0] for row in read.rows("databases")] == ["movr"]
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert '--database "x*" matches none' in warning.getMessage()


@pytest.mark.parametrize(("include", "exclude"), [(("x*",), ()), (("movr",), ("m*",))])
def test_patterns_that_leave_no_database_are_refused(
    serve: Serve, extract: Any, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="leave no database to read"):
        extract(serve(Sandbox(World(2, 1))), selection=Selection(include, exclude))


def test_a_cluster_in_which_everything_is_forbidden_refuses(serve: Serve, record: Any, extract: Any) -> None:
    rule = Rule(f"{LIST}/.*", Status(403))
    with pytest.raises(ClusterRefusedError, match="every request was answered 403") as caught:
        extract(serve(record(rule)))
    assert (rule.fired, caught.value.status) == (6, 403)


def test_a_forbidden_list_of_databases_refuses(serve: Serve, record: Any, extract: Any) -> None:
    with pytest.raises(ClusterRefusedError, match="GET databases answered 403; the account may not use") as caught:
        extract(serve(record(Rule(LIST, Status(403)))))
    assert type(caught.value) is ClusterRefusedError


def test_one_part_that_is_allowed_is_worth_a_run(serve: Serve, record: Any, extract: Any) -> None:
    read = extract(serve(record(Rule(f"{LIST}/(?!movr/grants).*", Status(403)))))
    assert {gap.reason for gap in read.gaps} == {"forbidden"}
    assert [row[0] for row in read.rows("database_grants")] != []


@pytest.mark.parametrize("action", [Status(500), Status(503)])
def test_a_cluster_in_which_every_part_fails_is_unavailable(
    action: Status, serve: Serve, record: Any, extract: Any
) -> None:
    with pytest.raises(ClusterUnavailableError, match="every request failed"):
        extract(serve(record(Rule(f"{LIST}/.*", action))))


@pytest.mark.parametrize(
    ("action", "end"),
    [
        (Status(500), ClusterUnavailableError),
        (Status(404), UnexpectedServerError),
        (Body(b"<html>", "text/html"), UnexpectedServerError),
        (Truncate(), UnexpectedServerError),
    ],
    ids=["500", "404", "html", "cut"],
)
def test_without_the_list_of_databases_there_is_no_run(
    action: Any, end: type[Exception], serve: Serve, record: Any, extract: Any
) -> None:
    app = record(Rule(LIST, action))
    with pytest.raises(end):
        extract(serve(app))
    assert app.paths[-1] == "logout/"


def test_an_empty_cluster_is_a_run_without_records(serve: Serve, extract: Any) -> None:
    read = extract(serve(Sandbox(World(0, 0))))
    assert (read.told, read.gaps, read.counts.details_wanted) == ([], [], 0)


def test_no_more_tables_are_asked_for_than_the_window_holds(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(world=World(databases=1, tables=200))

    def asked() -> int:
        return len([path for path in app.paths if "/tables/" in path])

    async def work(session: Session) -> int:
        extractor = Extractor(session, DocumentedDialect(), ALL, ("columns",), concurrency=2)
        async with aclosing(extractor.rows()) as told:
            await anext(told)
            while asked() < 16:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
        return asked()

    assert in_session(serve(app), work, concurrency=2) == 16


@pytest.mark.parametrize("leave", ["by cancellation", "by an error", "early"])
def test_a_walk_that_ends_early_leaves_nothing_running(leave: str, serve: Serve, record: Any, in_session: Any) -> None:
    ahead, slow = Rule(f"{LIST}/movr", Delay(5)), Rule(f"{LIST}/bank/tables/c.*", Delay(5))
    app = record(ahead, slow, world=World(databases=3, tables=30))
    left_running: set[Any] = set()

    async def walk(session: Session) -> None:
        extractor = Extractor(session, DocumentedDialect(), ALL, EVERYTHING, concurrency=3)
        async with aclosing(extractor.rows()) as told:
            async for _ in told:
                while not ahead.fired:
                    await asyncio.sleep(0.005)
                if leave == "by an error":
                    raise ConnectionError
                if leave == "early":
                    break

    async def work(session: Session) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def cancel_in_the_midst() -> None:
            if ahead.fired and slow.fired:
                task.cancel()
            else:
                loop.call_later(0.005, cancel_in_the_midst)

        if leave == "by cancellation":
            cancel_in_the_midst()
        try:
            await walk(session)
        finally:
            left_running.update(asyncio.all_tasks() - {task})

    end = {"by cancellation": asyncio.CancelledError, "by an error": ConnectionError, "early": None}[leave]
    with pytest.raises(end) if end else nullcontext():
        in_session(serve(app), work, concurrency=3, timeout=30.0)
    assert ahead.fired == 1
    assert left_running == set()
    assert app.paths[-1] == "logout/"


def test_a_probe_reads_one_table_of_each_database(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(f"{LIST}/movr/tables/rides", Status(403)), world=World(databases=3, tables=3))
    gaps: list[Gap] = []

    async def work(session: Session) -> None:
        extractor = Extractor(session, DocumentedDialect(), ALL, EVERYTHING, concurrency=2, gaps=gaps)
        await extractor.probe()

    in_session(serve(app), work)
    # Both are asked for at once, and either may arrive first.
    assert sorted(path for path in app.paths if "/tables/" in path) == [
        "databases/bank/tables/accounts",
        "databases/movr/tables/rides",
    ]
    assert gaps == [Gap("movr", "details", "forbidden", "public", "rides", 403)]


@pytest.mark.parametrize("answer", [Body(b'{"columns": "oops"}'), Status(400)])
def test_many_tables_of_an_odd_shape_cost_none_of_the_others(serve: Serve, extract: Any, answer: Any) -> None:
    odd = Rule(r".*/movr/tables/.+", answer)
    read = extract(serve(Sandbox(World(2, 40), faults=Faults(rules=[odd]))))
    assert len(read.rows("tables")) == 80
    assert len([gap for gap in read.gaps if gap.table is not None]) == 40


def test_a_cluster_that_knows_nothing_below_its_list_of_databases_is_not_believed(serve: Serve, extract: Any) -> None:
    nothing = Rule(r"/api/v2/databases/.+", Status(404))
    with pytest.raises(UnexpectedServerError, match="nothing below the list of databases"):
        extract(serve(Sandbox(World(2, 2), faults=Faults(rules=[nothing]))))
