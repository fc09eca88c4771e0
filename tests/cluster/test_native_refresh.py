"""Having the server measure its tables before they are read, with a clock that both sides share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from crdbexport.cluster.dialects import native_refresh
from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.dialects.native_refresh import StatsRefresh
from crdbexport.cluster.session import Session
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Body, Disconnect, Faults, Rule, Status, Truncate
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.world import World
from crdbexport.supervision import Progress, Stop

Serve = Callable[[ClusterApp], str]

BEGAN = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
JOB = "table_metadata/updatejob/"
TRIGGER, STATUS = f"POST {JOB}?onlyIfStale=1", f"GET {JOB}"
GOES_ON = "the run goes on with the statistics there are"


class Waiting:
    """A clock that only sleeping moves; keeps how long each sleep was, and what was told of the progress then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.shares: list[float | None] = []
        self.refresh = StatsRefresh(clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.shares.append(self.refresh.share)
        self.now += seconds


class Cluster(NativeSandbox):
    """A native server on the clock of whoever waits for it; keeps what was asked of its metadata, in order."""

    def __init__(self, waiting: Waiting, *rules: Rule, generation: Any = "v25", **quirks: Any) -> None:
        super().__init__(
            World(2, 2),
            generation=generation,
            faults=Faults(rules=rules),
            quirks=Quirks(**quirks),
            clock=lambda: BEGAN + timedelta(seconds=waiting.now),
        )
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, query = scope["path"].removeprefix("/api/v2/"), scope.get("query_string", b"").decode()
        if "metadata" in path:
            self.asked.append(f"{scope['method']} {path}{query and '?' + query}")
        await super().__call__(scope, receive, send)


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def refreshed(serve: Serve, in_session: Any, waiting: Waiting) -> Callable[[Cluster], Cluster]:
    """Has a server's statistics refreshed."""

    def run(app: Cluster) -> Cluster:
        in_session(serve(app), waiting.refresh)
        assert waiting.refresh.share is None
        return app

    return run


def warned(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning there is."""
    (warning,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    return warning


def job(path: str = f"/api/v2/{JOB}", **hits: Any) -> Callable[[Any], Rule]:
    return lambda action: Rule(path, action, **hits)


def test_measures_are_taken_before_they_are_read(serve: Serve, in_session: Any, waiting: Waiting) -> None:
    async def work(session: Session) -> list[Any]:
        dialect = await detected(session, "auto", waiting.refresh)
        databases = await dialect.databases(session)
        return [(await dialect.database_details(session, each)).stats_as_of for each in databases]

    app = Cluster(waiting, cold_cache=True, job_seconds=1.0)
    assert in_session(serve(app), work) == [BEGAN + timedelta(seconds=1)] * 3
    assert [each.split("?")[0] for each in app.asked if each != STATUS] == [
        f"POST {JOB}",
        f"POST {JOB}",
        "GET database_metadata/",
    ]


def test_the_job_is_started_once_and_followed_to_its_end(
    refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = refreshed(Cluster(waiting, stats_age_seconds=3600.0, job_seconds=100.0))
    assert app.asked == [TRIGGER, *[STATUS] * len(waiting.slept), TRIGGER]
    assert [each.event for each in caplog.records if each.name.endswith("native_refresh")] == [
        "stats_refresh_started",
        "stats_fresh",
    ]
    assert waiting.shares[0] == 0.0
    assert all(before < after for before, after in pairwise(waiting.shares))
    assert waiting.shares[-1] == pytest.approx(0.9, abs=0.1)


def test_the_waits_grow_to_ten_seconds(refreshed: Any, waiting: Waiting) -> None:
    refreshed(Cluster(waiting, cold_cache=True, job_seconds=100.0))
    assert waiting.slept[:3] == [0.25, 0.375, 0.5625]
    assert all(before <= after for before, after in pairwise(waiting.slept))
    assert max(waiting.slept) == 10.0
    assert 100.0 <= waiting.now < 110.0


def test_fresh_measures_are_left_alone(refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture) -> None:
    app = refreshed(Cluster(waiting, stats_age_seconds=19 * 60.0))
    assert (app.asked, waiting.slept, caplog.records) == ([TRIGGER], [], [])


def test_a_job_that_somebody_else_started_is_waited_for(
    refreshed: Any, waiting: Waiting, serve: Serve, in_session: Any
) -> None:
    app = Cluster(waiting, cold_cache=True, job_seconds=60.0)
    assert b"triggered successfully" in in_session(serve(app), lambda each: each.post(native_refresh.TRIGGER, bytes))
    waiting.now += 30.0
    refreshed(app)
    assert waiting.shares[1] == pytest.approx(0.5, abs=0.1)
    assert 60.0 <= waiting.now < 75.0


def test_a_job_that_is_not_ready_yet_is_asked_for_again(refreshed: Any, waiting: Waiting) -> None:
    not_ready = job(hits={1})(Body(b'{"job_triggered": false, "message": "Job is already running"}'))
    app = refreshed(Cluster(waiting, not_ready, cold_cache=True, job_seconds=0.3))
    assert app.asked == [TRIGGER, STATUS, TRIGGER, STATUS, TRIGGER]


@pytest.mark.parametrize("fault", [Status(503), Truncate(), Disconnect()])
def test_an_answer_that_is_lost_starts_nothing_twice(refreshed: Any, waiting: Waiting, fault: Any) -> None:
    app = refreshed(Cluster(waiting, job(hits={1})(fault), cold_cache=True, job_seconds=0.2))
    assert app.asked == [TRIGGER, TRIGGER, STATUS, TRIGGER]
    assert waiting.now == 0.25


@pytest.mark.slow
def test_a_job_without_an_end_is_left_after_an_hour(
    refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    app = refreshed(Cluster(waiting, cold_cache=True, job_seconds=1e9))
    assert 3600.0 <= waiting.now < 3610.0
    assert app.asked.count(TRIGGER) == 1
    assert f"--refresh-stats: the cluster is not done after 60 minutes; {GOES_ON}" in warned(caplog)


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ({"job_unclaimed": True}, "none of the cluster's nodes has taken the job so far"),
        ({"without_connect": ["bank", "movr", "system"]}, "answered 404; the account may not start the job: grant it"),
        ({"generation": "v22"}, "the server has no such job; v24.3 and later have one"),
    ],
)
def test_a_server_that_will_not_is_warned_about_once(
    refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture, app: dict[str, Any], told: str
) -> None:
    asked = refreshed(Cluster(waiting, cold_cache=True, **app)).asked
    assert told in warned(caplog)
    assert GOES_ON in warned(caplog)
    assert (asked, waiting.slept) == ([TRIGGER], [])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Status(403), "answered 403; the account may not start the job"),
        (Status(405), "answered 405; the run goes on"),
        (Status(500), "answered 500; newer versions may let only the role admin start the job"),
        (Body(b"{}"), "missing required field"),
        (Body(b'{"job_triggered": false, "message": "s3cret"}'), "for a reason unknown to this version"),
    ],
)
def test_an_answer_of_another_kind_costs_the_run_nothing(
    refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture, answer: Any, told: str
) -> None:
    refreshed(Cluster(waiting, job()(answer), cold_cache=True))
    assert told in warned(caplog)
    assert "s3cret" not in caplog.text


def test_a_status_that_cannot_be_read_ends_the_waiting(
    refreshed: Any, waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    app = refreshed(Cluster(waiting, job(hits=range(3, 99))(Status(503)), cold_cache=True, job_seconds=100.0))
    assert set(app.asked[1:]) == {STATUS}
    assert len(waiting.slept) == 2
    assert f"GET {JOB} answered 503" in warned(caplog)


def test_a_cancelled_wait_ends_at_once(serve: Serve, in_session: Any, waiting: Waiting) -> None:
    refresh = StatsRefresh()

    async def work(session: Session) -> None:
        waits = asyncio.create_task(refresh(session))
        while refresh.share is None:
            await asyncio.sleep(0.01)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    in_session(serve(Cluster(waiting, cold_cache=True, job_seconds=1e9)), work)
    assert refresh.share is None


@pytest.mark.slow
def test_a_stop_ends_the_waiting_and_logs_out(serve: Serve, export: Callable[..., Any], waiting: Waiting) -> None:
    app, stop, seen = Cluster(waiting, cold_cache=True, job_seconds=1e9), Stop(), []

    def watch(progress: Progress) -> None:
        if progress.reading and progress.reading.refresh.share is not None:
            seen.append(progress.reading.refresh.share)
            stop.request(15)

    report = export(serve(app), refresh_stats=True, call={"stop": stop, "watch": watch})
    assert (report.exit_code, report.status, report.dialect) == (143, "interrupted", None)
    assert seen
    assert (app.logins, app.logouts) == (1, 1)
    assert "GET database_metadata/" not in {each.split("?")[0] for each in app.asked}


@pytest.mark.parametrize(("wanted", "asked"), [({}, False), ({"refresh_stats": True}, True)])
def test_nothing_is_measured_unless_it_was_asked_for(
    serve: Serve, export: Callable[..., Any], waiting: Waiting, wanted: dict[str, bool], asked: bool
) -> None:
    app = Cluster(waiting, stats_age_seconds=60.0)
    assert export(serve(app), **wanted).exit_code == 0
    assert (TRIGGER in app.asked) is asked


def test_a_server_of_the_documented_form_has_no_such_job(
    serve: Serve, export: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = Sandbox(World(1, 2))
    assert export(serve(app), refresh_stats=True).exit_code == 0
    assert "the server has no such job; v24.3 and later have one" in warned(caplog)
    assert not any("metadata" in path for path in app.hits)


@pytest.mark.slow
def test_the_log_tells_the_beginning_and_the_end(serve: Serve, run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    app = NativeSandbox(World(1, 2), quirks=Quirks(cold_cache=True, job_seconds=0.2))
    cluster = ["--url", serve(app), "--cluster", "c1", "--username", "demo", "--log-format", "json"]
    ran = run_cli("export", *cluster, "--refresh-stats", "--sink", "jsonl:-")
    events = [json.loads(line)["event"] for line in ran.err.splitlines()]
    assert events[:3] == ["run_started", "stats_refresh_started", "stats_fresh"]
    assert not any("stats" in each for each in events[3:])
    tables = [each for each in map(json.loads, ran.out.splitlines()) if each["stream"] == "tables"]
    assert tables
    assert all(each["stats_as_of"] and each["replicated_bytes"] for each in tables)


def test_check_never_has_anything_measured(serve: Serve, run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    monkeypatch.setenv("CRDBEXPORT_REFRESH_STATS", "1")
    app = NativeSandbox(World(1, 2), quirks=Quirks(cold_cache=True))
    ran = run_cli("check", "--url", serve(app), "--cluster", "c1", "--username", "demo")
    assert "the cluster has never measured its tables: have them measured with --refresh-stats" in ran.err
    assert not any("updatejob" in path for path in app.hits)
    assert run_cli("check", "--refresh-stats").exit_code == 2
