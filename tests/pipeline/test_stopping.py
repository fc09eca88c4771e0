"""Runs that are ended from outside: whenever that happens, the session is closed and nothing is published."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport import Batch, RunReport, Sink, SinkBusyError, SinkError, Transform
from crdbexport import supervision as supervision_module
from crdbexport.pipeline.state import RunState
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Delay, Faults, Rule
from crdbexport.sandbox.world import World
from crdbexport.supervision import Progress, Stop

Export = Callable[..., RunReport]
SLOW_PATH = "/api/v2/databases/movr/tables/users"


@pytest.fixture
def slow_app() -> Sandbox:
    """A cluster of which one table's details take very long, the first time."""
    faults = Faults(rules=[Rule(SLOW_PATH, Delay(30), hits={1})])
    return Sandbox(World(databases=1, tables=2), faults=faults)


@pytest.fixture
def slow_url(slow_app: Sandbox, serve: Callable[[Sandbox], str]) -> str:
    return serve(slow_app)


@pytest.fixture
def short_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision_module, "STOP_SECONDS", 0.1)


def stopping_when(met: Callable[[Progress], bool], signal_number: int) -> dict[str, Any]:
    """Arguments of `export` that stop the run as soon as the condition is met."""
    stop = Stop()

    def watch(progress: Progress) -> None:
        if met(progress):
            stop.request(signal_number)

    return {"stop": stop, "watch": watch}


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "exit_code"), [(2, 130), (15, 143)])
def test_a_stop_while_reading_logs_out_and_publishes_nothing(
    export: Export, slow_app: Sandbox, slow_url: str, tmp_path: Path, signal_number: int, exit_code: int
) -> None:
    began = time.monotonic()

    report = export(slow_url, call=stopping_when(lambda progress: bool(slow_app.hits[SLOW_PATH]), signal_number))

    assert (report.status, report.exit_code) == ("interrupted", exit_code)
    assert report.error == f"stopped by signal {signal_number}"
    assert (slow_app.logins, slow_app.logouts) == (1, 1)
    assert [sink.status for sink in report.sinks] == ["aborted"]
    assert not [path for path in (tmp_path / "lake").rglob("*.parquet") if "_staging" not in path.parts]
    assert not list((tmp_path / "lake" / "_manifests").glob("*"))
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_stopped_run_is_resumed_by_the_same_command(
    export: Export, slow_app: Sandbox, slow_url: str, tmp_path: Path
) -> None:
    stopped = export(slow_url, call=stopping_when(lambda progress: bool(slow_app.hits[SLOW_PATH]), 2))
    assert stopped.exit_code == 130

    report = export(slow_url)

    assert (report.status, report.exit_code) == ("complete", 0)
    assert report.logical_time == stopped.logical_time
    assert len(list((tmp_path / "lake" / "_manifests").glob("*.json"))) == 1


def test_a_stop_while_a_sink_waits_for_its_target_is_a_stop(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any
) -> None:
    class Busy(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            raise SinkBusyError(retry_after=60)

    call = offering(busy=Busy)
    call |= stopping_when(lambda progress: progress.reading is not None and progress.reading.done, 15)

    report = export(url, sinks={"mine": {"type": "busy"}}, call=call)

    assert (report.status, report.exit_code) == ("interrupted", 143)
    assert telling.told == ["preflight", "open", ("abort", "StoppedError")]
    assert app.logouts == 1


@pytest.mark.slow
def test_a_stop_of_an_attempt_that_only_delivers_is_a_stop(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any
) -> None:
    trouble: list[Exception] = [SinkError("down"), SinkBusyError(retry_after=60)]

    class Troubled(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            if isinstance(trouble[0], SinkBusyError):
                raise trouble[0]

        def commit(self) -> None:
            raise trouble.pop(0)

    call = offering(troubled=Troubled)
    sinks = {"mine": {"type": "troubled"}}
    assert export(url, sinks=sinks, call=call).exit_code == 5
    hits = app.hits.total()

    report = export(url, sinks=sinks, call=call | stopping_when(lambda progress: progress.reading is None, 2))

    assert (report.status, report.exit_code) == ("interrupted", 130)
    assert app.hits.total() == hits


@pytest.mark.slow
@pytest.mark.usefixtures("short_stop")
@pytest.mark.parametrize("method", ["write", "commit"])
def test_a_sink_that_hangs_does_not_keep_a_stopped_run(
    export: Export, url: str, offering: Any, telling: Any, gate: threading.Event, method: str
) -> None:
    reached = threading.Event()

    def hang(self: Any) -> None:
        reached.set()
        gate.wait(5)

    call = offering(hanging=type("Hanging", (telling,), {method: hang}))
    call |= stopping_when(lambda progress: reached.is_set() and bool(progress.reading and progress.reading.done), 15)

    report = export(url, sinks={"mine": {"type": "hanging"}}, call=call)

    assert (report.status, report.exit_code) == ("interrupted", 143)
    assert report.sinks[0].status == "failed"


@pytest.mark.slow
@pytest.mark.usefixtures("short_stop")
def test_a_transform_that_hangs_does_not_keep_a_stopped_run_and_adds_nothing_to_it_later(
    export: Export, url: str, offering: Any, telling: Any, gate: threading.Event, tmp_path: Path
) -> None:
    reached = threading.Event()
    readers: list[threading.Thread] = []

    class Hanging(Transform):
        def apply(self, batch: Batch) -> Any:
            readers.append(threading.current_thread())
            reached.set()
            gate.wait(5)
            return batch.data.slice(0, 0)

    call = offering(fine=telling, transforms={"hanging": Hanging})
    call |= stopping_when(lambda progress: reached.is_set(), 2)

    transforms = ({"type": "hanging"},)
    report = export(url, sinks={"mine": {"type": "fine"}}, stream=("tables",), transforms=transforms, call=call)

    assert (report.status, report.exit_code) == ("interrupted", 130)
    assert telling.told == ["preflight", ("abort", "StoppedError")]
    gate.set()
    readers[0].join(5)
    assert not readers[0].is_alive()
    assert not (tmp_path / "state" / "runs" / "c1.r1" / "extraction.json").exists()


@pytest.mark.slow
def test_a_stop_that_comes_after_one_sink_has_committed_is_a_stop_and_the_rest_is_resumed(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any
) -> None:
    class Busy(Sink):
        busy = True

        def write(self, batch: Batch) -> None:
            if self.busy:
                raise SinkBusyError(retry_after=60)

    call = offering(fine=telling, busy=Busy)
    sinks = {"fine": {"type": "fine"}, "busy": {"type": "busy"}}
    stopped = export(
        url, sinks=sinks, call=call | stopping_when(lambda progress: progress.lanes[0].status == "committed", 2)
    )
    assert (stopped.status, stopped.exit_code) == ("interrupted", 130)
    assert [sink.status for sink in stopped.sinks] == ["committed", "aborted"]
    hits, told = app.hits.total(), list(telling.told)

    Busy.busy = False
    report = export(url, sinks=sinks, call=call)

    assert (report.status, report.exit_code) == ("complete", 0)
    assert (app.hits.total(), telling.told) == (hits, told)


def test_a_stop_that_comes_when_all_is_committed_changes_nothing(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    call = offering(fine=telling) | stopping_when(
        lambda progress: all(lane.status == "committed" for lane in progress.lanes), 2
    )

    report = export(url, sinks={"mine": {"type": "fine"}}, call=call)

    assert (report.status, report.exit_code) == ("complete", 0)


def test_the_first_stop_decides() -> None:
    stop = Stop()
    stop.request(15)
    stop.request(2)

    assert stop.error is not None
    assert stop.error.exit_code == 143


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__)
def test_what_a_watcher_raises_comes_out_after_everything_is_wound_up(
    export: Export,
    slow_app: Sandbox,
    slow_url: str,
    offering: Any,
    telling: Any,
    tmp_path: Path,
    error: BaseException,
) -> None:
    def watch(progress: Progress) -> None:
        if slow_app.hits[SLOW_PATH]:
            raise error

    before = set(threading.enumerate())

    with pytest.raises(type(error)) as raised:
        export(slow_url, sinks={"mine": {"type": "fine"}}, call={**offering(fine=telling), "watch": watch})

    assert raised.value is error
    assert slow_app.logouts == 1
    assert telling.told == ["preflight", ("abort", type(error).__name__)]
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("crdbexport")]
    for thread in left:
        thread.join(1)
    assert not [thread.name for thread in left if thread.is_alive()]
    RunState(tmp_path / "state", "c1", "r1").close()
    assert export(slow_url, sinks={"mine": {"type": "fine"}}, call=offering(fine=telling)).exit_code == 0
