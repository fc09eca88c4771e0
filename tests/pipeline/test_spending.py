"""The report tells what each plugin spent within its own calls, and people hear of one that dominates."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crdbexport import Batch, RecordRefusedError, RunReport, Sink, SinkBusyError, Transform, hookimpl
from crdbexport.pipeline.spending import Spent
from crdbexport.report import PluginReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

PAUSE = 0.02


class Slow(Sink):
    def open(self) -> None:
        time.sleep(PAUSE)

    def write(self, batch: Batch) -> None:
        time.sleep(PAUSE)


class Failing(Sink):
    def write(self, batch: Batch) -> None:
        raise OSError("the canary died")


class Same(Transform):
    def apply(self, batch: Batch) -> Any:
        time.sleep(PAUSE)
        return batch.data


class Plugin:
    @hookimpl
    def crdbexport_register_sinks(self, register: Any) -> None:
        register("slow", Slow)
        register("failing", Failing)

    @hookimpl
    def crdbexport_register_transforms(self, register: Any) -> None:
        register("same", Same)


class Observer:
    @hookimpl
    def crdbexport_run_started(self) -> None:
        raise LookupError("no such run")

    @hookimpl
    def crdbexport_batch_delivered(self) -> None: ...


@pytest.fixture
def report(export: Callable[..., RunReport], serve: Callable[[Sandbox], str]) -> RunReport:
    sinks = {"lake": {"type": "slow"}, "bad": {"type": "failing"}}
    call = {"plugins": [("mine", Plugin()), ("watcher", Observer())]}
    url = serve(Sandbox(World(databases=2, tables=2)))
    return export(url, call=call, sinks=sinks, transforms=({"type": "same"},))


def spent(report: RunReport, kind: str, name: str) -> PluginReport:
    (found,) = [each for each in report.plugins if (each.kind, each.name) == (kind, name)]
    return found


def test_a_sink_s_time_is_that_within_its_calls(report: RunReport) -> None:
    lake = spent(report, "sink", "lake")
    batches = sum(each.batches for each in report.streams.values())
    assert (lake.distribution, lake.batches, lake.errors) == ("mine", batches, 0)
    assert PAUSE * (batches + 1) <= lake.wall_seconds < 5
    bad = spent(report, "sink", "bad")
    assert (bad.batches, bad.errors) == (0, 1)
    assert bad.wall_seconds < lake.wall_seconds


def test_transforms_and_observers_are_told_of_likewise(report: RunReport) -> None:
    same, watcher = spent(report, "transform", "same"), spent(report, "observer", "watcher")
    batches = sum(each.batches for each in report.streams.values())
    assert (same.batches, same.errors) == (batches, 0)
    assert same.wall_seconds >= PAUSE * batches
    assert (watcher.distribution, watcher.errors) == ("watcher", 1)
    assert watcher.batches <= batches  # The last ones may come after the report.


def test_only_what_takes_part_is_told_of(report: RunReport) -> None:
    parts = [(each.kind, each.name) for each in report.plugins]
    assert parts == [("sink", "lake"), ("sink", "bad"), ("transform", "same"), ("observer", "watcher")]


@pytest.mark.parametrize(
    ("error", "errors"),
    [(SinkBusyError(), 0), (RecordRefusedError(["x"], "no"), 0), (OSError(), 1), (SystemExit(), 1)],
    ids=["busy", "refused", "failed", "ended"],
)
def test_what_the_lane_understands_is_no_error(error: BaseException, errors: int) -> None:
    tally = Spent()
    with pytest.raises(type(error)), tally.call(batches=1):
        raise error
    assert (tally.batches, tally.errors) == (0, errors)


def test_a_call_that_does_not_come_back_counts() -> None:
    tally = Spent()
    with tally.call():
        time.sleep(PAUSE)
        assert tally.seconds == 0
        assert tally.so_far >= PAUSE
    assert tally.so_far == tally.seconds >= PAUSE


@pytest.mark.parametrize(
    ("wall_seconds", "verbose", "told"),
    [(9.0, False, True), (4.0, False, False), (4.0, True, True)],
    ids=["dominating", "small", "verbose"],
)
def test_people_hear_of_it_where_it_dominates_or_they_ask(
    capsys: pytest.CaptureFixture[str],
    export: Callable[..., RunReport],
    serve: Callable[[Sandbox], str],
    wall_seconds: float,
    verbose: bool,
    told: bool,
) -> None:
    from crdbexport.cli.summary import tell

    report = export(serve(Sandbox(World(databases=1, tables=1))))
    report.plugins = (PluginReport("sink", "lake", "crdbexport-kafka", "2.3", wall_seconds, 40, 0),)
    report.sinks = ()
    config: Any = SimpleNamespace(allow_gaps=())

    tell(report, config, str, verbose=verbose)

    line = f"  sink lake of crdbexport-kafka 2.3 took {wall_seconds:.1f} s for 40 batches\n"
    assert (line in capsys.readouterr().err) == told
