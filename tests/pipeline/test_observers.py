from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from crdbexport import Batch, Run, RunReport, hookimpl
from crdbexport.pipeline import observers as observers_module
from crdbexport.pipeline.observers import Observers
from crdbexport.plugin_manager import Plugins

PATIENCE_SECONDS = 5.0


class Hearing:
    """An observer that notes what it hears in a list that it shares with others."""

    def __init__(self, name: str, heard: list[Any]) -> None:
        self.name = name
        self.heard = heard

    @hookimpl
    def crdbexport_run_started(self, run: Run) -> None:
        self.heard.append((self.name, "started", run.run_id))

    @hookimpl
    def crdbexport_batch_delivered(self, sink_name: str, batch: Batch) -> None:
        self.heard.append((self.name, sink_name, batch.stream))

    @hookimpl
    def crdbexport_run_finished(self, report: RunReport) -> None:
        self.heard.append((self.name, "finished", report.exit_code))


class Failing:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def crdbexport_run_started(self) -> None:
        raise self.error


class Hanging:
    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.reached = threading.Event()

    @hookimpl
    def crdbexport_run_started(self) -> None:
        self.reached.set()
        self.gate.wait(PATIENCE_SECONDS)


def observed_by(*plugins: object) -> Observers:
    known = Plugins()
    for number, plugin in enumerate(plugins):
        known.add(plugin, f"observer{number}")
    return Observers(known)


@pytest.fixture
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers_module, "FAREWELL_SECONDS", 0.05)


def test_observers_hear_of_a_run_in_its_order(export: Any, url: str, offering: Any, telling: Any) -> None:
    heard: list[Any] = []
    call = offering(telling=telling)
    call["plugins"].append(("ear", Hearing("ear", heard)))

    export(url, sinks={"mine": {"type": "telling"}}, call=call)

    streams = ["databases", "database_grants", "tables", "columns", "indexes", "table_grants"]
    assert heard[0] == ("ear", "started", "r1")
    assert sorted(heard[1:-1]) == sorted(("ear", "mine", stream) for stream in streams)
    assert heard[-1] == ("ear", "finished", 0)


def test_observers_hear_of_a_run_that_failed(export: Any, url: str, offering: Any, telling: Any) -> None:
    heard: list[Any] = []

    def fail(self: Any) -> None:
        raise RuntimeError("no")

    call = offering(telling=type("Failing", (telling,), {"open": fail}))
    call["plugins"].append(("ear", Hearing("ear", heard)))

    export(url, sinks={"mine": {"type": "telling"}}, call=call)

    assert heard == [("ear", "started", "r1"), ("ear", "finished", 5)]


def test_observers_are_called_one_at_a_time_on_a_thread_of_their_own(run: Run) -> None:
    calls: list[tuple[str, threading.Thread]] = []

    class Slow:
        @hookimpl
        def crdbexport_run_started(self) -> None:
            calls.append(("begin", threading.current_thread()))
            time.sleep(0.01)
            calls.append(("end", threading.current_thread()))

    observers = observed_by(Slow(), Slow())
    for _ in range(2):
        observers.tell("crdbexport_run_started", run=run)
    observers.close()

    assert [what for what, _ in calls] == ["begin", "end"] * 4
    (thread,) = {thread for _, thread in calls}
    assert thread.name == "crdbexport-observers"
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), SystemExit("no"), KeyboardInterrupt("no")], ids=lambda error: type(error).__name__
)
def test_a_failing_observer_is_logged_by_name_and_hurts_nobody(
    run: Run, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    heard: list[Any] = []
    observers = observed_by(Hearing("before", heard), Failing(error), Hearing("after", heard))

    for _ in range(2):
        observers.tell("crdbexport_run_started", run=run)
    observers.close()

    assert heard == [(name, "started", "r1") for name in ("before", "after")] * 2
    told = f"observer crdbexport_run_started of plugin observer1 failed: {type(error).__name__}: no"
    assert caplog.text.count(told) == 2


def test_a_failing_observer_does_not_change_the_exit_code(
    export: Any, url: str, offering: Any, telling: Any, caplog: pytest.LogCaptureFixture
) -> None:
    call = offering(telling=telling)
    call["plugins"].append(("bad", Failing(SystemExit(7))))

    assert export(url, sinks={"mine": {"type": "telling"}}, call=call).exit_code == 0
    assert "observer crdbexport_run_started of plugin bad failed: SystemExit: 7" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("short_farewell")
def test_a_hanging_observer_does_not_keep_the_run(
    export: Any, url: str, offering: Any, telling: Any, gate: threading.Event
) -> None:
    hanging = Hanging(gate)
    call = offering(telling=telling)
    call["plugins"].append(("stuck", hanging))
    began = time.monotonic()

    report = export(url, sinks={"mine": {"type": "telling"}}, call=call)

    assert report.exit_code == 0
    assert hanging.reached.is_set()
    assert time.monotonic() - began < PATIENCE_SECONDS / 2


@pytest.mark.usefixtures("short_farewell")
def test_an_observer_that_cannot_keep_up_misses_events_and_that_is_said_once(
    run: Run, gate: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observers_module, "WAITING_EVENTS", 2)
    hanging = Hanging(gate)
    observers = observed_by(hanging)
    observers.tell("crdbexport_run_started", run=run)
    assert hanging.reached.wait(PATIENCE_SECONDS)

    for _ in range(5):
        observers.tell("crdbexport_run_started", run=run)
    observers.close()

    assert caplog.text.count("too slow and misses events") == 1


def test_where_nobody_observes_there_is_no_thread(run: Run) -> None:
    before = threading.active_count()
    observers = observed_by()
    observers.tell("crdbexport_run_started", run=run)

    assert threading.active_count() == before
    observers.close()
