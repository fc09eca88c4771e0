"""What a cluster answered is remembered as it was; what may be otherwise by now is asked again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdbexport.cluster.dialects.detection import Detected, detected
from crdbexport.cluster.dialects.wire_native import DatabaseMetadata
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.cluster.model import (
    Column,
    Database,
    DatabaseDetails,
    Grant,
    Index,
    Parts,
    Table,
    TableDetails,
    TableStats,
)
from crdbexport.cluster.remembering import PASSING, Nothing, RememberingDialect, remembered
from crdbexport.cluster.session import Session
from crdbexport.errors import ClusterUnavailableError, LookAgainError, PartlyReadError, UnreadableError
from crdbexport.records import GAP_REASONS, STREAMS
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.world import World
from crdbexport.selection import Selection

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORLD = World(3, 5, views=2)
FORMS: dict[str, Callable[..., ClusterApp]] = {
    "documented": lambda **options: Sandbox(WORLD, **options),
    "v22": lambda **options: NativeSandbox(WORLD, generation="v22", **options),
    "v25": lambda **options: NativeSandbox(WORLD, generation="v25", clock=lambda: NOON, **options),
}
FORBIDDEN = Rule(".*/databases/bank/grants/?", Status(403))
NOT_OF_THE_WALK = ("health", "login", "logout")
SETTLED = sorted(set(GAP_REASONS) - PASSING)


class Kept(dict[str, bytes]):
    """A memory that lives as long as a test."""

    def recall(self, question: str) -> bytes | None:
        return self.get(question)

    def keep(self, question: str, answer: bytes) -> None:
        self[question] = bytes(answer)

    def forget(self) -> None:
        self.clear()


@dataclass
class Walked:
    rows: list[tuple[str, Any]] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    counts: WalkCounts = field(default_factory=WalkCounts)


Walk = Callable[..., Walked]


@pytest.fixture
def walk(in_session: Any) -> Walk:
    """Walks a cluster with a memory, and answers what was told."""

    def run(url: str, memory: Any, *, include: tuple[str, ...] = (), dialect: Any = "auto") -> Walked:
        walked = Walked()

        async def work(session: Session) -> None:
            asked = RememberingDialect(await detected(session, dialect, None, memory), memory)
            extractor = Extractor(
                session, asked, Selection(), tuple(STREAMS), 4, walked.counts, walked.gaps, include=include
            )
            async with aclosing(extractor.rows()) as told:
                async for stream, rows in told:
                    walked.rows += [(stream, row) for row in rows]

        in_session(url, work)
        return walked

    return run


def asked(app: ClusterApp) -> Counter[str]:
    """The requests of the walk by path."""
    return Counter({path: count for path, count in app.hits.items() if path.split("/")[3] not in NOT_OF_THE_WALK})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("include", [(), ("create_statement", "column_default", "zone_config")], ids=["", "include"])
def test_a_second_walk_asks_for_nothing_and_tells_the_same(
    serve: Callable[[ClusterApp], str], walk: Walk, form: str, include: tuple[str, ...]
) -> None:
    app, memory = FORMS[form](faults=Faults(rules=[FORBIDDEN])), Kept()
    url = serve(app)
    first = walk(url, memory, include=include)
    assert asked(app)
    assert {gap.reason for gap in first.gaps} >= {"forbidden"}
    app.hits.clear()

    second = walk(url, memory, include=include)

    # Views answer 500: of those, and of nothing else, is asked again.
    unsettled = {gap.table for gap in first.gaps if gap.reason in PASSING}
    assert {path.rstrip("/").rpartition(".")[2].rpartition("/")[2] for path in asked(app)} == unsettled
    assert (second.rows, second.gaps, second.counts) == (first.rows, first.gaps, first.counts)


@pytest.mark.parametrize("form", FORMS)
def test_a_walk_without_a_memory_tells_the_same(serve: Callable[[ClusterApp], str], walk: Walk, form: str) -> None:
    url = serve(FORMS[form](faults=Faults(rules=[FORBIDDEN])))
    assert walk(url, Kept()).rows == walk(url, Nothing()).rows


@pytest.mark.parametrize("form", FORMS)
def test_a_walk_goes_on_from_any_half_of_what_was_remembered(
    serve: Callable[[ClusterApp], str], walk: Walk, form: str
) -> None:
    app, memory = FORMS[form](), Kept()
    url = serve(app)
    first = walk(url, memory)
    requests = asked(app)
    for keeps in (lambda number: number % 2, lambda number: number < len(memory) // 2):
        half = Kept({key: value for number, (key, value) in enumerate(memory.items()) if keeps(number)})
        app.hits.clear()

        again = walk(url, half)

        assert (again.rows, again.gaps) == (first.rows, first.gaps)
        assert 0 < asked(app).total() < requests.total()


@pytest.mark.parametrize("form", ["documented", "v22"])
def test_the_dialect_is_found_once(serve: Callable[[ClusterApp], str], walk: Walk, form: str) -> None:
    app, memory = FORMS[form](), Kept()
    walk(serve(app), memory)
    assert '["dialect"]' in memory

    lists = app.hits["/api/v2/databases"] + app.hits["/api/v2/databases/"]
    walk(serve(app), memory)
    assert app.hits["/api/v2/databases"] + app.hits["/api/v2/databases/"] == lists


def test_a_dialect_that_was_given_is_nothing_that_was_read(serve: Callable[[ClusterApp], str], in_session: Any) -> None:
    memory = Kept()

    async def work(session: Session) -> None:
        assert (await detected(session, "documented", None, memory)).name == "documented"

    in_session(serve(FORMS["documented"]()), work)
    assert not memory


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("form", FORMS)
def test_a_server_in_trouble_is_asked_again_once_it_is_well(
    serve: Callable[[ClusterApp], str], walk: Walk, form: str, status: int
) -> None:
    path = ".*/databases/bank/(tables/)?[^/]*/?"
    well = walk(serve(FORMS[form]()), Kept())
    sick = Rule(path, Status(status))
    memory = Kept()
    first = walk(serve(FORMS[form](faults=Faults(rules=[sick]))), memory)
    assert sick.fired
    assert any(gap.reason == "server_error" and gap.database == "bank" for gap in first.gaps)

    second = walk(serve(FORMS[form]()), memory)

    assert sorted(map(repr, second.rows)) == sorted(map(repr, well.rows))
    assert not [gap for gap in second.gaps if gap not in well.gaps]


@pytest.mark.parametrize("form", FORMS)
def test_a_body_that_cannot_be_read_is_asked_for_again(
    serve: Callable[[ClusterApp], str], walk: Walk, form: str
) -> None:
    memory = Kept()
    broken = Rule(".*/databases/bank/tables/?", Body(b'{"tables": [{"na'))
    first = walk(serve(FORMS[form](faults=Faults(rules=[broken]))), memory)
    assert [gap.reason for gap in first.gaps if gap.database == "bank" and gap.part == "tables"] == ["bad_body"]

    second = walk(serve(FORMS[form]()), memory)

    assert not [gap for gap in second.gaps if gap.part == "tables"]
    assert any(stream == "tables" and row[0] == "bank" for stream, row in second.rows)


def test_a_list_that_is_read_in_part_is_remembered_as_such_where_that_is_final(
    serve: Callable[[ClusterApp], str], walk: Walk
) -> None:
    looping = Rule(".*/databases/bank/tables/", Body(b'{"table_names": ["public.a", "public.b"], "next": 2}'))
    app = FORMS["v22"](faults=Faults(rules=[looping]))
    memory, url = Kept(), serve(app)
    first = walk(url, memory)
    assert [gap.reason for gap in first.gaps if gap.part == "tables"] == ["pagination_loop"]
    app.hits.clear()

    second = walk(url, memory)

    assert (second.rows, second.gaps) == (first.rows, first.gaps)
    assert not [path for path in asked(app) if path.endswith("/bank/tables/")]


class Answering:
    """A dialect whose table details come from a list, one a question; counts the questions."""

    name, privileges, details_at_once, parts, requests = "fake", None, None, None, None

    def __init__(self, *answers: TableDetails | Exception) -> None:
        self.answers = list(answers)

    async def table_details(self, session: Any, table: Table, parts: Parts) -> TableDetails:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


TABLE = Table("bank", "public", "users")
DETAILS = TableDetails(table_id=7)
PARTS = Parts(True, True, True, True)


def look(dialect: RememberingDialect) -> TableDetails | UnreadableError:
    try:
        return asyncio.run(dialect.table_details(None, TABLE, PARTS))  # type: ignore[arg-type]
    except UnreadableError as error:
        return error


def facts(error: Any) -> tuple[Any, ...]:
    return (type(error), str(error), error.reason, error.http_status, getattr(error, "value", None))


@pytest.mark.parametrize("reason", SETTLED)
@pytest.mark.parametrize(
    "made",
    [
        lambda reason: UnreadableError("GET x answered y", reason=reason, http_status=403),
        lambda reason: LookAgainError("GET x answered y", reason=reason, http_status=500),
        lambda reason: PartlyReadError("GET x answered y", DETAILS, reason=reason),
    ],
    ids=["unreadable", "look again", "partly"],
)
def test_what_cannot_be_read_for_good_is_remembered_with_all_its_facts(reason: str, made: Any) -> None:
    memory, error = Kept(), made(reason)
    told = look(RememberingDialect(Answering(error), memory))  # type: ignore[arg-type]
    assert told is error

    again = look(RememberingDialect(Answering(), memory))  # type: ignore[arg-type]

    assert facts(again) == facts(error)


@pytest.mark.parametrize("reason", sorted(PASSING))
@pytest.mark.parametrize("kind", [UnreadableError, lambda *a, **k: PartlyReadError(a[0], DETAILS, **k)])
def test_what_a_server_in_trouble_failed_to_tell_is_not_remembered(reason: str, kind: Any) -> None:
    memory = Kept()
    look(RememberingDialect(Answering(kind("no", reason=reason)), memory))  # type: ignore[arg-type]

    assert not memory
    assert look(RememberingDialect(Answering(DETAILS), memory)) == DETAILS  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", sorted(PASSING))
def test_the_first_look_is_remembered_for_the_order_and_the_second_is_made_anew(reason: str) -> None:
    memory, again = Kept(), LookAgainError("no", reason=reason)
    first = RememberingDialect(Answering(again, again), memory)  # type: ignore[arg-type]
    assert [type(look(first)), type(look(first))] == [LookAgainError, LookAgainError]

    dialect = Answering(DETAILS)
    second = RememberingDialect(dialect, memory)  # type: ignore[arg-type]

    assert isinstance(look(second), LookAgainError)
    assert len(dialect.answers) == 1
    assert look(second) == DETAILS
    assert not dialect.answers


def test_a_second_look_that_told_something_is_remembered() -> None:
    memory = Kept()
    first = RememberingDialect(Answering(LookAgainError("no", reason="server_error"), DETAILS), memory)  # type: ignore[arg-type]
    assert [isinstance(look(first), LookAgainError), look(first)] == [True, DETAILS]

    second = RememberingDialect(Answering(), memory)  # type: ignore[arg-type]

    assert [isinstance(look(second), LookAgainError), look(second)] == [True, DETAILS]


def test_the_end_of_a_run_is_no_answer() -> None:
    memory = Kept()
    with pytest.raises(ClusterUnavailableError):
        look(RememberingDialect(Answering(ClusterUnavailableError("gone")), memory))  # type: ignore[arg-type]
    assert not memory


def test_names_that_look_alike_in_a_question_are_told_apart() -> None:
    memory = Kept()
    names = [("a", "b.c", "d"), ("a.b", "c", "d"), ("a", "b", "c.d"), ('a","b', "c", "d"), ("a", 'b","c', "d")]

    async def ask(number: int, question: tuple[str, ...]) -> TableDetails:
        async def answer() -> TableDetails:
            return TableDetails(table_id=number)

        return await remembered(memory, question, TableDetails, answer)

    for number, each in enumerate(names):
        assert asyncio.run(ask(number, each)).table_id == number
    assert [asyncio.run(ask(-1, each)).table_id for each in names] == list(range(len(names)))


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8)
# With offsets, as on the wire: where clocks are put back, times of a zone equal no other times.
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=OFFSETS | st.just(None))


def a(kind: Any, /, **fields: Any) -> st.SearchStrategy[Any]:
    """Values of a struct in which every field varies."""
    assert set(fields) == set(kind.__struct_fields__), "the round trip must make up every field of the model"
    return st.builds(kind, **fields)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


NUMBERS, TEXTS = maybe(INT64), maybe(TEXT)
MANY_INT64 = maybe(st.lists(INT64, max_size=3).map(tuple))
MANY_TEXTS = st.lists(TEXT, max_size=3).map(tuple)
STATS = a(
    TableStats,
    replicated_bytes=NUMBERS,
    live_bytes=NUMBERS,
    range_count=NUMBERS,
    replica_count=NUMBERS,
    store_ids=MANY_INT64,
    stats_as_of=maybe(TIMES),
)
GRANTS = a(Grant, grantee=TEXT, privilege=TEXT)
SHAPES: dict[Any, st.SearchStrategy[Any]] = {
    list[Database]: st.lists(a(Database, name=TEXT, database_id=NUMBERS), max_size=4),
    DatabaseDetails: a(
        DatabaseDetails,
        database_id=NUMBERS,
        size_bytes=NUMBERS,
        replicated_bytes=NUMBERS,
        table_count=NUMBERS,
        store_ids=MANY_INT64,
        stats_as_of=maybe(TIMES),
    ),
    list[Grant]: st.lists(GRANTS, max_size=4),
    list[Table]: st.lists(
        a(
            Table,
            database=TEXT,
            schema=TEXT,
            name=TEXT,
            table_id=NUMBERS,
            size_bytes=NUMBERS,
            kind=TEXTS,
            shares_name=st.booleans(),
            stats=STATS,
            address=TEXTS,
            maybe_view=st.booleans(),
        ),
        max_size=3,
    ),
    TableDetails: a(
        TableDetails,
        table_id=NUMBERS,
        size_bytes=NUMBERS,
        live_bytes=NUMBERS,
        range_count=NUMBERS,
        create_statement=TEXTS,
        configure_zone_statement=TEXTS,
        zone_config=TEXTS,
        columns=st.lists(
            a(
                Column,
                name=TEXT,
                data_type=TEXT,
                is_nullable=st.booleans(),
                is_hidden=maybe(st.booleans()),
                column_default=TEXTS,
                generation_expression=TEXTS,
            ),
            max_size=3,
        ).map(tuple),
        indexes=st.lists(
            a(
                Index,
                name=TEXT,
                is_unique=st.booleans(),
                column_names=MANY_TEXTS,
                directions=maybe(MANY_TEXTS),
                stored_columns=maybe(MANY_TEXTS),
            ),
            max_size=3,
        ).map(tuple),
        grants=st.lists(GRANTS, max_size=3).map(tuple),
    ),
    Detected: a(
        Detected,
        documented=maybe(st.lists(a(Database, name=TEXT, database_id=NUMBERS), max_size=3)),
        names=maybe(st.lists(TEXT, max_size=3)),
        metadata=maybe(
            st.dictionaries(
                TEXT,
                a(
                    DatabaseMetadata,
                    db_id=INT64,
                    db_name=TEXT,
                    size_bytes=INT64,
                    table_count=INT64,
                    store_ids=maybe(st.lists(INT64, max_size=3)),
                    last_updated=maybe(TIMES),
                ),
                max_size=3,
            )
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_was_answered_is_recalled_as_it_was(shape: Any, data: st.DataObject) -> None:
    value, memory = data.draw(SHAPES[shape]), Kept()

    async def ask(answer: Any) -> Any:
        async def answered() -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return await remembered(memory, ("question",), shape, answered)

    assert asyncio.run(ask(value)) is value
    recalled = asyncio.run(ask(AssertionError("asked again")))
    assert recalled == value
