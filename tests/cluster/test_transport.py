from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest

from crdbexport.cluster.breaker import FAILURES_IN_A_ROW
from crdbexport.cluster.dialects.wire_documented import TableReply
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.pace import Pace
from crdbexport.cluster.replies import judged
from crdbexport.cluster.transport import ClusterTransport
from crdbexport.errors import (
    ClusterUnavailableError,
    CrdbExportError,
    LookAgainError,
    RedirectRefusedError,
    UnreadableError,
)
from crdbexport.http import HttpClient
from crdbexport.report import RequestCounts
from crdbexport.retry import RetryBudget, RetryPolicy
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Delay, Disconnect, Faults, Rule, Status, Truncate
from crdbexport.sandbox.world import World

T = TypeVar("T")
Serve = Callable[[Sandbox], str]
Work = Callable[[ClusterTransport], Awaitable[T]]

ONCE = RetryPolicy(attempts=1)
LIST, HEALTH = "/api/v2/databases", "/api/v2/health"
REQUESTS_AT_ONCE = 8


def sandbox(*rules: Rule, **options: Any) -> Sandbox:
    return Sandbox(World(2, 3), require_login=False, faults=Faults(rules=rules), **options)


def database(name: str) -> Endpoint:
    return Endpoint("GET", ("databases", name))


async def get(transport: ClusterTransport, endpoint: Endpoint) -> bytes:
    return await transport.exchange(endpoint, lambda reply: judged(endpoint, reply, bytes))


async def end_of(transport: ClusterTransport, endpoint: Endpoint) -> CrdbExportError:
    with pytest.raises(CrdbExportError) as caught:
        await get(transport, endpoint)
    return caught.value


class Sleeper:
    """Takes the place of sleeping: returns at once, and keeps what was asked for."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def with_transport(tls: ssl.SSLContext) -> Callable[..., Any]:
    """Does some work with a transport that does not really sleep."""

    def run(work: Work[T], *urls: str, concurrency: int = 4, timeout: float = 5.0, **options: Any) -> T:
        async def main() -> T:
            async with HttpClient(timeout_seconds=timeout, connections=concurrency + 1, tls=tls) as http:
                bases = [f"{url}/api/v2" for url in urls]
                return await work(ClusterTransport(http, bases, concurrency, **{"sleep": Sleeper(), **options}))

        return asyncio.run(main())

    return run


@pytest.fixture
def closed_port() -> Iterator[str]:
    """The URL of a port that is taken, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_segments_are_encoded_as_a_whole() -> None:
    endpoint = Endpoint("POST", ("databases", "a/b", "50%", "?q#f", "ü 🚀"), trailing_slash=True)
    assert str(endpoint) == "POST databases/a%2Fb/50%25/%3Fq%23f/%C3%BC%20%F0%9F%9A%80/"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_ceiling_is_reached_and_never_exceeded(concurrency: int, serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(f"{LIST}/d[0-5]", Status(500), hits={1}), latency_seconds=0.004)

    async def work(transport: ClusterTransport) -> list[bytes | BaseException]:
        names = [f"d{number}" for number in range(30)]
        return await asyncio.gather(*[get(transport, database(name)) for name in names], return_exceptions=True)

    ends = with_transport(work, serve(app), concurrency=concurrency)
    assert all(isinstance(end, UnreadableError) and end.reason == "not_found" for end in ends)
    assert app.hits.total() == 36
    assert app.max_in_flight == concurrency


class Clock:
    """A clock that goes only when told, and the waits that were asked for meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def turns(self, pace: Pace, number: int) -> list[float]:
        """How long each of so many requests waits that come at the same moment."""

        async def main() -> list[float]:
            waits = []
            for _ in range(number):
                self.slept = []
                await pace.turn()
                waits.append(sum(self.slept))
            return waits

        return asyncio.run(main())


def paced(per_second: float | None) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(per_second, clock, clock.sleep), clock


def test_requests_that_come_at_once_are_spaced_evenly() -> None:
    pace, clock = paced(10)
    assert clock.turns(pace, 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_quiet_time_is_not_made_up_for() -> None:
    pace, clock = paced(10)
    clock.turns(pace, 2)
    clock.now += 60
    assert clock.turns(pace, 3) == pytest.approx([0, 0.1, 0.2])


def test_without_a_pace_nobody_waits() -> None:
    pace, clock = paced(None)
    assert clock.turns(pace, 100) == [0] * 100


def test_a_held_pace_stops_everybody_for_that_long_and_no_longer() -> None:
    pace, clock = paced(None)
    pace.hold(7)
    pace.hold(3)
    assert clock.turns(pace, 2) == [7, 7]
    clock.now += 6.5
    assert clock.turns(pace, 1) == [0.5]
    clock.now += 1
    assert clock.turns(pace, 1) == [0]


def test_a_held_pace_begins_again_evenly() -> None:
    pace, clock = paced(2)
    pace.hold(7)
    assert clock.turns(pace, 3) == [7, 7.5, 8]


def test_the_transport_keeps_the_pace(serve: Serve, with_transport: Any) -> None:
    sleep = Sleeper()

    async def work(transport: ClusterTransport) -> None:
        await asyncio.gather(*[get(transport, database("movr")) for _ in range(5)])

    with_transport(work, serve(sandbox()), max_rps=0.1, sleep=sleep)
    assert sleep.slept == pytest.approx([10, 20, 30, 40], abs=1)


@pytest.mark.parametrize(("asked", "held"), [("7", 7), ("99999", 120)])
def test_a_server_that_throttles_is_left_alone_by_everybody(
    asked: str, held: float, serve: Serve, with_transport: Any
) -> None:
    busy = Rule(f"{LIST}/movr", Status(429, {"Retry-After": asked}))
    sleep = Sleeper()

    async def work(transport: ClusterTransport) -> None:
        await end_of(transport, database("movr"))
        assert sleep.slept == []
        await get(transport, database("bank"))

    with_transport(work, serve(sandbox(busy)), retry=ONCE, sleep=sleep)
    assert busy.fired == 1
    assert sleep.slept == pytest.approx([held], abs=1)


@pytest.mark.parametrize("action", [Status(503), Status(503, {"Retry-After": "7"}), Status(429)], ids=str)
def test_what_may_be_the_trouble_of_one_endpoint_holds_nobody_else(
    action: Status, serve: Serve, with_transport: Any
) -> None:
    busy = Rule(f"{LIST}/movr", action)
    sleep = Sleeper()

    async def work(transport: ClusterTransport) -> None:
        await end_of(transport, database("movr"))
        await get(transport, database("bank"))

    with_transport(work, serve(sandbox(busy)), retry=ONCE, sleep=sleep)
    assert (busy.fired, sleep.slept) == (1, [])


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Status(500), "server_error"),
        (Status(429), "server_error"),
        (Truncate(), "bad_body"),
        (Disconnect(), "bad_body"),
        (Body(b"{}"), "bad_body"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_until_the_attempts_are_used_up(
    action: Any, reason: str, serve: Serve, with_transport: Any
) -> None:
    rule = Rule(f"{LIST}/movr/tables/users", action)
    endpoint = Endpoint("GET", ("databases", "movr", "tables", "users"))
    decoder = msgspec.json.Decoder(TableReply, strict=False)

    async def work(transport: ClusterTransport) -> UnreadableError:
        with pytest.raises(UnreadableError) as caught:
            await transport.exchange(endpoint, lambda reply: judged(endpoint, reply, decoder.decode))
        return caught.value

    error = with_transport(work, serve(sandbox(rule)), retry=RetryPolicy(attempts=4))
    assert (error.reason, rule.fired) == (reason, 4)


def test_a_late_answer_is_a_timeout(serve: Serve, with_transport: Any) -> None:
    rule = Rule(f"{LIST}/movr", Delay(5))

    async def work(transport: ClusterTransport) -> CrdbExportError:
        return await end_of(transport, database("movr"))

    error = with_transport(work, serve(sandbox(rule)), timeout=0.05, retry=RetryPolicy(attempts=2))
    assert isinstance(error, UnreadableError)
    assert (error.reason, error.http_status, rule.fired) == ("timeout", None, 2)
    assert "GET databases/movr at http://127.0.0.1:" in str(error)


def test_a_timeout_is_tried_again_once(serve: Serve, with_transport: Any) -> None:
    rule = Rule(f"{LIST}/movr", Delay(5))

    async def work(transport: ClusterTransport) -> CrdbExportError:
        return await end_of(transport, database("movr"))

    with_transport(work, serve(sandbox(rule)), timeout=0.05)
    assert rule.fired == 2


def test_a_request_keeps_its_place_under_the_ceiling_until_it_is_settled(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(f"{LIST}/movr", Status(503), hits={1, 2}))

    async def work(transport: ClusterTransport) -> None:
        await asyncio.gather(get(transport, database("movr")), get(transport, database("bank")))

    with_transport(work, serve(app), concurrency=1)
    assert list(app.hits.items()) == [(f"{LIST}/movr", 3), (f"{LIST}/bank", 1)]


def test_a_budget_that_is_spent_leaves_one_attempt_until_answers_refill_it(serve: Serve, with_transport: Any) -> None:
    broken = Rule(f"{LIST}/f[0-9]+", Status(500))
    budget = RetryBudget(tokens=2 * 14 + 13)

    async def work(transport: ClusterTransport) -> None:
        await end_of(transport, failing(1))
        assert (broken.fired, budget.tokens, budget.denied) == (3, 13, 1)
        await end_of(transport, failing(2))
        assert (broken.fired, budget.tokens, budget.denied) == (4, 13, 2)
        await get(transport, database("movr"))
        assert budget.tokens == 14
        await end_of(transport, failing(3))
        assert (broken.fired, budget.tokens) == (6, 0)

    with_transport(work, serve(sandbox(broken)), budget=budget)


def test_what_is_looked_at_again_costs_the_budget_nothing(serve: Serve, with_transport: Any) -> None:
    async def work(transport: ClusterTransport) -> None:
        for number in range(FAILURES_IN_A_ROW * 2):
            with pytest.raises(LookAgainError):
                await look(transport, failing(number))
        assert transport.budget == RetryBudget()

    with_transport(work, serve(sandbox(Rule(f"{LIST}/f[0-9]+", Status(500)))))


def failing(number: int) -> Endpoint:
    return database(f"f{number}")


async def look(transport: ClusterTransport, endpoint: Endpoint) -> bytes:
    return await transport.exchange(endpoint, lambda reply: judged(endpoint, reply, bytes, look_again_at={500}))


def test_many_failures_in_a_row_end_the_run(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(f"{LIST}/f[0-9]+", Status(500)))

    async def work(transport: ClusterTransport) -> list[CrdbExportError]:
        return [await end_of(transport, failing(number)) for number in range(FAILURES_IN_A_ROW + 3)]

    ends = with_transport(work, serve(app), retry=RetryPolicy(attempts=2))
    assert FAILURES_IN_A_ROW == 20
    assert [type(end) for end in ends] == [UnreadableError] * 19 + [ClusterUnavailableError] * 4
    assert app.hits.total() == 20 * 2 + app.hits[HEALTH], "what comes after the end is not sent"
    assert app.hits[HEALTH] == 1, "good health does not keep a run alive in which nothing can be read"
    assert "20 objects in a row could not be read (the last: GET databases/f19 answered 500)" in str(ends[-1])
    assert "the same command continues later" in str(ends[-1])


def test_three_failures_in_a_row_end_the_run_where_the_health_is_bad_too(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(".*", Status(500)))

    async def work(transport: ClusterTransport) -> list[CrdbExportError]:
        return [await end_of(transport, failing(number)) for number in range(5)]

    ends = with_transport(work, serve(app), retry=ONCE)
    assert [type(end) for end in ends] == [UnreadableError] * 2 + [ClusterUnavailableError] * 3
    assert app.hits == {f"{LIST}/f0": 1, f"{LIST}/f1": 1, f"{LIST}/f2": 1, HEALTH: 3}
    assert "3 objects in a row could not be read, and the cluster is not in good health" in str(ends[-1])


def test_objects_that_fail_as_views_do_end_no_run_in_good_health(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(f"{LIST}/f[0-9]+", Status(500)))

    async def work(transport: ClusterTransport) -> None:
        for number in range(3 + 2 * FAILURES_IN_A_ROW):
            with pytest.raises(LookAgainError):
                await look(transport, failing(number))

    with_transport(work, serve(app))
    assert app.hits[HEALTH] == 3


def test_that_views_are_no_trouble_does_not_excuse_what_fails_after_them(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(HEALTH, Status(500), hits=range(2, 99)), Rule(f"{LIST}/f[0-9]+", Status(500)))

    async def work(transport: ClusterTransport) -> None:
        for number in range(5):
            with pytest.raises(LookAgainError):
                await look(transport, failing(number))
        assert app.hits[HEALTH] == 1
        for number in range(2):
            assert isinstance(await end_of(transport, failing(number)), UnreadableError)
        assert isinstance(await end_of(transport, failing(2)), ClusterUnavailableError)

    with_transport(work, serve(app), retry=ONCE)


def test_objects_that_fail_as_views_do_end_a_run_in_bad_health(serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(".*", Status(500)))

    async def work(transport: ClusterTransport) -> None:
        for number in range(2):
            with pytest.raises(LookAgainError):
                await look(transport, failing(number))
        with pytest.raises(ClusterUnavailableError):
            await look(transport, failing(2))

    with_transport(work, serve(app))
    assert app.hits[HEALTH] == 3


@pytest.mark.parametrize("between", ["movr", "nobody"])
def test_an_answer_in_between_ends_the_row_of_failures(between: str, serve: Serve, with_transport: Any) -> None:
    app = sandbox(Rule(f"{LIST}/f[0-9]+", Status(500)))

    async def work(transport: ClusterTransport) -> None:
        for number in range(FAILURES_IN_A_ROW + 5):
            assert isinstance(await end_of(transport, failing(number)), UnreadableError)
            if number % 10 == 0:
                await asyncio.gather(get(transport, database(between)), return_exceptions=True)

    with_transport(work, serve(app), retry=ONCE)
    assert app.hits.total() - app.hits[HEALTH] == FAILURES_IN_A_ROW + 5 + 3


def test_an_end_is_the_end_of_all_later_requests_but_the_farewell(serve: Serve, with_transport: Any) -> None:
    other = Rule(f"{LIST}/movr", Status(302, {"location": "https://other.example/"}))
    app = sandbox(other)

    async def work(transport: ClusterTransport) -> None:
        first = await end_of(transport, database("movr"))
        assert isinstance(first, RedirectRefusedError)
        assert await end_of(transport, database("bank")) is first
        assert (await transport.farewell(Endpoint("POST", ("logout",), trailing_slash=True), {})).status == 200

    with_transport(work, serve(app))
    assert app.hits == {f"{LIST}/movr": 1, "/api/v2/logout/": 1}


def test_the_next_address_is_asked_where_nobody_listens(serve: Serve, closed_port: str, with_transport: Any) -> None:
    app = sandbox()

    async def work(transport: ClusterTransport) -> None:
        for _ in range(3):
            await get(transport, database("movr"))

    counts = RequestCounts()
    with_transport(work, closed_port, serve(app), counts=counts)
    assert app.hits.total() == 3
    assert (counts.total, counts.failed) == (4, 1), "the address that answered is kept"


@pytest.mark.parametrize("at_once", [2, REQUESTS_AT_ONCE])
def test_requests_that_fail_side_by_side_move_on_by_one_address(
    at_once: int, serve: Serve, closed_port: str, with_transport: Any
) -> None:
    app = sandbox()

    async def work(transport: ClusterTransport) -> None:
        await asyncio.gather(*[get(transport, database("movr")) for _ in range(at_once)])

    with_transport(work, closed_port, serve(app), concurrency=at_once, retry=RetryPolicy(attempts=2))
    assert app.hits.total() == at_once


def test_a_cluster_of_which_no_address_answers_is_unavailable(closed_port: str, with_transport: Any) -> None:
    counts = RequestCounts()

    async def work(transport: ClusterTransport) -> CrdbExportError:
        return await end_of(transport, database("movr"))

    error = with_transport(work, closed_port, retry=RetryPolicy(attempts=3), counts=counts)
    assert isinstance(error, ClusterUnavailableError)
    assert f"{closed_port}: cannot connect" in str(error)
    assert (counts.total, counts.retried, counts.failed, counts.by_status) == (3, 2, 3, {})


def test_requests_are_counted_as_they_were_sent(serve: Serve, with_transport: Any) -> None:
    flaky = Rule(f"{LIST}/movr", Status(503), hits={1, 2})
    counts = RequestCounts()

    async def work(transport: ClusterTransport) -> None:
        await get(transport, database("movr"))
        await get(transport, database("bank"))
        await end_of(transport, database("nobody"))

    with_transport(work, serve(sandbox(flaky)), counts=counts)
    assert (counts.total, counts.retried, counts.failed) == (5, 2, 3)
    assert counts.by_status == {"503": 2, "200": 2, "404": 1}


def test_a_retry_is_logged_with_its_endpoint_and_wait(
    serve: Serve, caplog: pytest.LogCaptureFixture, with_transport: Any
) -> None:
    async def work(transport: ClusterTransport) -> None:
        await get(transport, database("movr"))

    with caplog.at_level(logging.INFO, logger="crdbexport"):
        with_transport(work, serve(sandbox(Rule(f"{LIST}/movr", Status(503, {"Retry-After": "2"}), hits={1}))))
    (record,) = [each for each in caplog.records if each.name == "crdbexport.cluster.transport"]
    assert record.getMessage().startswith("GET databases/movr answered 503; trying again in 2.")
    assert (record.event, record.endpoint) == ("retry", "GET databases/movr")  # type: ignore[attr-defined]


@pytest.mark.slow
def test_health_can_be_asked_for_while_every_connection_waits(
    serve: Serve, in_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdbexport.cluster.transport.QUIET_SECONDS", 0.05)
    app = Sandbox(World(2, 3), faults=Faults(rules=[Rule(f"{LIST}/(movr|bank)", Delay(0.25))]))

    async def work(session: Any) -> None:
        await asyncio.gather(*[session.get(database(name), bytes) for name in ("movr", "bank")])
        assert app.hits[HEALTH] >= 3

    in_session(serve(app), work, concurrency=2, timeout=0.9)
