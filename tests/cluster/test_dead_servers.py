"""Servers that die in the middle of a run, in every way and at every moment; and slow ones, which are not dead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from crdbexport.cluster.limit import INITIAL
from crdbexport.config import Secret
from crdbexport.errors import ClusterUnavailableError, TryLaterError
from crdbexport.retry import RetryBudget, RetryPolicy
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Delay, Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.world import World
from tests.cluster.simulated import Run, Server, answers, never_answers, read_whole, refuses, stalls_the_handshake

LOGIN = {"username": "demo", "password": Secret("demo")}
DETAILS = "/api/v2/databases/[^/]+/tables/.+"
HEALTH = "/api/v2/health"

# How many requests are answered before the end.
PHASES = {"health": 0, "login": 1, "list": 2, "lists": 6, "midway": 60, "last objects": 125}
DEATHS = {
    "refuses": refuses,
    "stalls the handshake": stalls_the_handshake,
    "never answers": never_answers,
    "500": answers(500),
    "502": answers(502),
    "503": answers(503),
    "503, at once": answers(503, {"Retry-After": "0"}),
    "503, soon": answers(503, {"Retry-After": "30"}),
    "429, soon": answers(429, {"Retry-After": "1"}),
}
HOSTILE = [
    "-5",
    "nan",
    "inf",
    "1e9",
    "0x10",
    "1_000",
    "",
    "9" * 400,
    "999999999",
    "120",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
]

Read = Callable[..., Run]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tls: Any) -> Read:
    """Reads a whole cluster in simulated time."""
    return lambda server, **changes: read_whole(server, monkeypatch, **{**LOGIN, **changes})


def documented() -> ClusterApp:
    """136 requests: health, login, logout, the list, and 12 parts of databases and 120 tables."""
    return Sandbox(World(4, 60))


def native(generation: str) -> ClusterApp:
    return NativeSandbox(World(4, 60, views=5), generation=generation)


def assert_ended_soon(run: Run) -> None:
    assert isinstance(run.error, TryLaterError)
    assert run.error.exit_code == 5
    assert "the same command continues later" in str(run.error) or "run it again later" in str(run.error)
    assert 0 < run.server.asked_when_dead <= 70
    assert run.seconds_when_dead <= 120
    assert run.requests.total == len(run.server.asked)


def test_the_sandbox_that_dies_is_read_whole_while_it_lives(read: Read) -> None:
    run = read(Server(documented()))
    assert (run.error, run.gaps, len(run.server.asked), run.walk.tables_done) == (None, [], 136, 120)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_server_costs_few_requests_and_two_minutes_at_most(death: str, phase: str, read: Read) -> None:
    assert_ended_soon(read(Server(documented(), DEATHS[death], PHASES[phase])))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", HOSTILE)
def test_a_dead_server_may_ask_for_any_wait(asked: str, status: int, read: Read) -> None:
    assert_ended_soon(read(Server(documented(), answers(status, {"Retry-After": asked}), 60)))


@pytest.mark.parametrize("death", ["500", "never answers"])
@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_a_dead_native_server_is_told_from_one_that_has_views(generation: str, death: str, read: Read) -> None:
    assert_ended_soon(read(Server(native(generation), DEATHS[death], 60)))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(1, 600.0), (8, 5.0)], ids=str)
@pytest.mark.parametrize("app", [documented, lambda: native("v22"), lambda: native("v25")])
def test_the_bounds_hold_for_every_ceiling_timeout_and_dialect(
    app: Callable[[], ClusterApp], settings: tuple[int, float], read: Read
) -> None:
    concurrency, timeout = settings
    for death in DEATHS.values():
        for lives_for in PHASES.values():
            assert_ended_soon(read(Server(app(), death, lives_for), concurrency=concurrency, timeout=timeout))


def test_a_silent_server_is_asked_for_its_health_before_it_is_given_up(read: Read) -> None:
    run = read(Server(documented(), never_answers, 60))
    assert run.server.asked[-4:] == ["health", "health", "health", "logout/"]
    assert 3 + 1 < run.server.asked_when_dead <= 8 + 3 + 1
    assert "no usable answer for" in str(run.error)
    assert "GET health at http://cluster.test: no answer within 15 s" in str(run.error)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_moment_is_read_whole(read: Read) -> None:
    for death in (refuses, answers(503)):
        run = read(Server(documented(), death, 60, away_seconds=0.5))
        assert run.server.died_at is not None
        assert (run.error, run.gaps, run.walk.tables_done) == (None, [], 120)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_healthy_server_whose_statements_take_100_seconds_is_read(concurrency: int, read: Read) -> None:
    app = Sandbox(World(1, 6), faults=Faults(rules=[Rule(DETAILS, Delay(100))]))
    run = read(Server(app), concurrency=concurrency)
    assert (run.error, run.gaps, run.requests.retried) == (None, [], 0)
    assert run.seconds <= run.walk.tables_done * 100 / min(concurrency, INITIAL)
    assert app.hits[HEALTH] > 1


def test_an_answer_says_more_than_bad_health(read: Read) -> None:
    sick = Rule(HEALTH, Status(500), hits=range(2, 99))
    app = Sandbox(World(1, 3), faults=Faults(rules=[sick, Rule(DETAILS, Delay(60.1))]))
    run = read(Server(app), concurrency=1)
    assert sick.fired > 3
    assert (run.error, run.gaps) == (None, [])


def test_a_slow_pace_is_no_silence(read: Read) -> None:
    app = Sandbox(World(1, 2))
    run = read(Server(app), max_rps=0.01)
    assert (run.error, run.gaps) == (None, [])
    assert run.seconds >= 100 * (run.walk.details_wanted + 2)
    assert app.hits[HEALTH] == 1


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_statement_that_takes_too_long_is_a_gap_and_not_the_end(concurrency: int, read: Read) -> None:
    slow = Rule("/api/v2/databases/movr/tables/users", Delay(130))
    run = read(Server(Sandbox(World(2, 6), faults=Faults(rules=[slow]))), concurrency=concurrency)
    assert run.error is None
    assert [(gap.table, gap.reason) for gap in run.gaps] == [("users", "timeout")]
    assert slow.fired == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_one_error_in_ten_leaves_no_gap_and_costs_little(
    seed: int, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []

    class Watched(RetryBudget):
        def pay(self, tokens: int) -> bool:
            paid = super().pay(tokens)
            levels.append(self.tokens)
            return paid

    monkeypatch.setattr("crdbexport.cluster.connect.ClusterTransport", _with_budget(Watched()))
    faults = Faults(0.1, seed)
    run = read(Server(Sandbox(World(24, 100), latency_seconds=0.02, faults=faults)))
    objects = run.walk.details_wanted
    assert objects >= 2000
    assert faults.drawn >= objects * 0.08
    assert (run.error, run.gaps) == (None, [])
    assert run.requests.total <= 1.15 * (run.requests.total - run.requests.retried)
    assert min(levels) > 500 * 0.6, "a success earns more than one error in ten costs"


def _with_budget(budget: RetryBudget) -> Any:
    from crdbexport.cluster.transport import ClusterTransport

    return functools.partial(ClusterTransport, budget=budget)


def test_a_run_on_a_dead_server_ends_with_what_was_seen_and_the_command_that_continues(
    serve: Any, run_cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    quick = RetryPolicy(attempts=3, base_seconds=0.001)
    monkeypatch.setattr("crdbexport.cluster.connect.RetryPolicy", lambda: quick)
    monkeypatch.setattr("crdbexport.cluster.transport.HEALTH_RETRY", quick)
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    rules = [Rule(DETAILS, Status(502)), Rule(HEALTH, Status(502), hits=range(2, 99))]
    app = Sandbox(World(2, 30), faults=Faults(rules=rules))
    sink = f"parquet:{tmp_path}/lake"
    command = ["export", "--url", serve(app), "--cluster", "c1", "--username", "demo", "--sink", sink]
    ran = run_cli(*command, "--run-id", "r1")
    assert ran.exit_code == ClusterUnavailableError.exit_code
    assert "objects in a row could not be read, and the cluster is not in good health" in ran.err
    assert "(GET health answered 502)" in ran.err
    assert "the same command continues later" in ran.err
    assert f"run it again with:\n  crdbexport {' '.join(command)} --run-id r1" in ran.err
    assert app.hits.total() - 9 <= 70
