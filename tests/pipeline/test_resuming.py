"""One run in several attempts: what is read is read once, what is committed is committed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crdbexport import Batch, ConfigError, RecordRefusedError, RunReport, Sink, SinkError, Transform, hookimpl
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.state import RunState
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World
from crdbexport.supervision import Stop
from crdbexport.transforms.base import TransformConfig

Export = Callable[..., RunReport]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BOTH = {"first": {"type": "fine"}, "second": {"type": "mendable"}}


@pytest.fixture
def mendable() -> Any:
    """A sink that fails in its commit until its class is mended; `rows` is what it was given last."""

    class Mendable(Sink):
        broken: ClassVar[bool] = True
        rows: ClassVar[list[dict[str, Any]]] = []

        def open(self) -> None:
            self.rows.clear()

        def write(self, batch: Batch) -> None:
            self.rows.extend(batch.rows())

        def commit(self) -> None:
            if self.broken:
                raise SinkError("the target is down")

    return Mendable


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs" / "c1.r1"


@pytest.fixture
def call(offering: Any, telling: Any, mendable: Any) -> dict[str, Any]:
    called: dict[str, Any] = offering(fine=telling, mendable=mendable)
    return called


@pytest.mark.slow
def test_a_failed_sink_is_fed_from_the_spool_without_asking_the_cluster_again(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any, mendable: Any, run_directory: Path
) -> None:
    first = export(url, sinks=BOTH, call=call)

    assert (first.status, first.exit_code) == ("incomplete", 3)
    assert first.error == "sink second failed: the target is down"
    assert [sink.status for sink in first.sinks] == ["committed", "failed"]
    assert first.sinks[1].streams["tables"].undelivered == 2
    assert list((run_directory / "spool").iterdir())
    hits, told, rows = app.hits.total(), list(telling.told), list(mendable.rows)
    assert hits

    mendable.broken = False
    second = export(url, sinks=BOTH, call=call)

    assert (second.status, second.exit_code, second.error) == ("complete", 0, None)
    assert [(sink.name, sink.status) for sink in second.sinks] == [("first", "committed"), ("second", "committed")]
    assert app.hits.total() == hits
    assert telling.told == told
    assert mendable.rows == rows
    assert second.streams == first.streams
    assert second.requests == first.requests
    assert not (run_directory / "spool").exists()


def test_a_run_that_is_committed_already_does_nothing_and_has_the_same_exit_code(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any
) -> None:
    first = export(url, sinks={"first": {"type": "fine"}}, call=call)
    hits, told = app.hits.total(), list(telling.told)

    second = export(url, sinks={"first": {"type": "fine"}}, call=call)

    assert second == first
    assert (app.hits.total(), telling.told) == (hits, told)


def test_a_spool_that_a_dying_attempt_left_behind_goes_with_the_next(
    export: Export, url: str, call: Any, run_directory: Path
) -> None:
    export(url, sinks={"first": {"type": "fine"}}, call=call)
    (run_directory / "spool").mkdir()

    assert export(url, sinks={"first": {"type": "fine"}}, call=call).exit_code == 0

    assert not (run_directory / "spool").exists()


def test_a_committed_run_with_gaps_has_the_same_exit_code_again(
    export: Export, serve: Callable[[Sandbox], str], call: Any
) -> None:
    faults = Faults(rules=[Rule("/api/v2/databases/movr/grants", Status(403), hits={1})])
    url = serve(Sandbox(World(databases=1, tables=1), faults=faults))

    codes = [export(url, sinks={"first": {"type": "fine"}}, call=call).exit_code for _ in range(2)]

    assert codes == [3, 3]


def test_gaps_are_remembered_by_the_attempt_that_delivers_the_rest(
    export: Export, serve: Callable[[Sandbox], str], call: Any, mendable: Any
) -> None:
    faults = Faults(rules=[Rule("/api/v2/databases/movr/grants", Status(403), hits={1})])
    url = serve(Sandbox(World(databases=1, tables=1), faults=faults))
    first = export(url, sinks=BOTH, call=call)
    mendable.broken = False

    second = export(url, sinks=BOTH, call=call)

    assert second.gaps == first.gaps != ()
    assert second.exit_code == 3
    assert second.error == "1 gaps that are not allowed (1 forbidden)"


@pytest.mark.slow
def test_the_only_sink_down_is_exit_5_and_nothing_is_read_twice(
    export: Export, url: str, app: Sandbox, call: Any, mendable: Any, run_directory: Path
) -> None:
    sinks = {"second": {"type": "mendable"}}
    assert export(url, sinks=sinks, call=call).exit_code == 5
    hits = app.hits.total()
    assert export(url, sinks=sinks, call=call).exit_code == 5
    mendable.broken = False

    assert export(url, sinks=sinks, call=call).exit_code == 0
    assert app.hits.total() == hits
    assert not (run_directory / "spool").exists()


def test_every_attempt_tells_the_same_times(export: Export, url: str, call: Any, mendable: Any) -> None:
    moments = iter(NOON + timedelta(days=each) for each in range(100))
    call = {**call, "clock": lambda: next(moments)}
    first = export(url, sinks=BOTH, call=call)
    rows = list(mendable.rows)
    mendable.broken = False

    second = export(url, sinks=BOTH, call=call)

    assert mendable.rows == rows
    assert second.logical_time == first.logical_time
    assert second.started_at > first.started_at


def test_a_sink_that_comes_after_the_records_are_gone_is_refused(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any, mendable: Any
) -> None:
    mendable.broken = False
    export(url, sinks={"first": {"type": "fine"}}, call=call)
    hits, told = app.hits.total(), list(telling.told)

    for sinks in (BOTH, {"second": {"type": "mendable"}}):
        with pytest.raises(ConfigError, match='run "r1" is committed and its records are no longer kept') as raised:
            export(url, sinks=sinks, call=call)
        assert "second cannot be fed from it; give another --run-id" in str(raised.value)

    assert (app.hits.total(), telling.told, mendable.rows) == (hits, told, [])


def test_a_sink_may_be_mended_by_a_command_that_names_it_alone(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any, mendable: Any
) -> None:
    export(url, sinks=BOTH, call=call)
    hits, told = app.hits.total(), list(telling.told)
    mendable.broken = False

    alone = export(url, sinks={"second": {"type": "mendable"}}, call=call)
    again = export(url, sinks=BOTH, call=call)

    assert [(sink.name, sink.status) for sink in alone.sinks] == [("first", "committed"), ("second", "committed")]
    assert again == alone
    assert again.exit_code == 0
    assert (app.hits.total(), telling.told) == (hits, told)


def test_a_committed_sink_that_points_elsewhere_now_is_refused(export: Export, url: str, call: Any) -> None:
    export(url, sinks={"first": {"type": "fine", "target": "here"}}, call=call)

    with pytest.raises(ConfigError, match="sink first has committed this run to fine:here already"):
        export(url, sinks={"first": {"type": "fine", "target": "elsewhere"}}, call=call)


def test_other_settings_are_refused_once_the_run_is_read(export: Export, url: str, app: Sandbox, call: Any) -> None:
    export(url, sinks=BOTH, call=call)
    hits = app.hits.total()

    with pytest.raises(ConfigError, match="was read with another stream"):
        export(url, sinks=BOTH, stream=("tables",), call=call)
    assert app.hits.total() == hits


@pytest.mark.slow
def test_a_run_that_was_never_read_may_change_its_settings(
    export: Export, serve: Callable[[Sandbox], str], call: Any, telling: Any
) -> None:
    faults = Faults(rules=[Rule("/api/v2/databases", Status(403), hits={1})])
    url = serve(Sandbox(World(databases=1, tables=1), faults=faults))
    assert export(url, sinks={"first": {"type": "fine"}}, call=call).exit_code == 4

    report = export(url, sinks={"first": {"type": "fine"}}, stream=("tables",), call=call)

    assert report.exit_code == 0
    assert set(report.streams) == {"tables"}


def test_dead_letters_make_exit_3_and_are_kept_with_the_spool(
    export: Export, url: str, app: Sandbox, offering: Any, run_directory: Path
) -> None:
    class Picky(Sink):
        def write(self, batch: Batch) -> None:
            refused = [row["record_id"] for row in batch.rows() if row.get("table_name") == "users"]
            if refused and batch.stream == "tables":
                raise RecordRefusedError(refused, "too long")

    call = offering(picky=Picky)
    first = export(url, sinks={"mine": {"type": "picky"}}, call=call)

    assert (first.status, first.exit_code) == ("incomplete", 3)
    assert first.error == "1 records refused, kept as dead letters"
    counts = first.sinks[0].streams["tables"]
    assert (counts.delivered, counts.dead_lettered, counts.undelivered) == (1, 1, 0)
    letters = (run_directory / "dead_letters" / "mine.jsonl").read_text().splitlines()
    assert len(letters) == 1
    assert (run_directory / "spool").exists()

    hits = app.hits.total()
    assert export(url, sinks={"mine": {"type": "picky"}}, call=call) == first
    assert app.hits.total() == hits


def test_dead_letters_of_a_committed_sink_outlive_the_attempt_that_mends_another(
    export: Export, url: str, offering: Any, mendable: Any, run_directory: Path
) -> None:
    class Picky(Sink):
        def write(self, batch: Batch) -> None:
            raise RecordRefusedError([row["record_id"] for row in batch.rows()], "no")

    sinks = {"picky": {"type": "picky"}, "second": {"type": "mendable"}}
    call = offering(picky=Picky, mendable=mendable)
    export(url, sinks=sinks, call=call)
    mendable.broken = False

    report = export(url, sinks=sinks, call=call)

    assert [sink.status for sink in report.sinks] == ["committed", "committed"]
    assert report.exit_code == 3
    assert (run_directory / "dead_letters" / "picky.jsonl").exists()
    assert (run_directory / "spool").exists()


@pytest.mark.slow
def test_a_transform_is_not_applied_again_by_an_attempt_that_only_delivers(
    export: Export, url: str, offering: Any, telling: Any, mendable: Any
) -> None:
    applied: list[str] = []

    class Counting(Transform):
        def apply(self, batch: Batch) -> Any:
            applied.append(batch.stream)
            return batch.data

    call = offering(transforms={"counting": Counting}, fine=telling, mendable=mendable)
    for broken in (True, False):
        mendable.broken = broken
        export(url, sinks=BOTH, transforms=({"type": "counting"},), call=call)

    assert len(applied) == len(set(applied)) == 6


@pytest.mark.slow
def test_a_disk_that_does_not_take_the_spool_is_exit_5_and_the_same_command_resumes(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any, run_directory: Path
) -> None:
    run_directory.mkdir(parents=True)
    in_the_way = run_directory / "spool"
    in_the_way.touch()

    report = export(url, sinks={"first": {"type": "fine"}}, call=call)

    assert (report.status, report.exit_code) == ("failed", 5)
    assert str(in_the_way) in (report.error or "")
    assert telling.told == ["preflight", ("abort", "StorageError")]
    assert app.logouts == 1

    in_the_way.unlink()
    assert export(url, sinks={"first": {"type": "fine"}}, call=call).exit_code == 0


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_left_alone(
    export: Export, url: str, app: Sandbox, call: Any, telling: Any, tmp_path: Path
) -> None:
    holder = RunState(tmp_path / "state", "c1", "r1")
    try:
        with pytest.raises(Exception, match="is held by another process") as raised:
            export(url, sinks={"first": {"type": "fine"}}, call=call)
    finally:
        holder.close()

    assert raised.value.exit_code == 5  # type: ignore[attr-defined]
    assert (app.hits.total(), telling.told) == (0, [])
    assert export(url, sinks={"first": {"type": "fine"}}, call=call).exit_code == 0


def test_a_failed_sink_that_is_left_out_of_a_later_command_stays_owed(
    export: Export, url: str, app: Sandbox, call: Any, mendable: Any
) -> None:
    export(url, sinks=BOTH, call=call)
    third = {**BOTH, "third": {"type": "fine"}}
    without = {name: sink for name, sink in third.items() if name != "second"}
    later = export(url, sinks=without, call=call)
    assert (later.exit_code, later.error) == (3, "sink second still lacks the run")
    assert {sink.name: sink.status for sink in later.sinks} == {
        "first": "committed",
        "second": "failed",
        "third": "committed",
    }
    mendable.broken = False
    hits = app.hits.total()
    assert export(url, sinks=third, call=call).exit_code == 0
    assert app.hits.total() == hits


def test_observers_see_gaps_under_the_names_that_are_published(
    export: Export, serve: Callable[[Sandbox], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunReport] = []

    class Observer:
        @hookimpl
        def crdbexport_run_finished(self, report: RunReport) -> None:
            seen.append(report)

    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", "0123456789abcdef")
    faults = Faults(rules=[Rule("/api/v2/databases/bank/grants", Status(403))])
    report = export(
        serve(Sandbox(World(2, 2), faults=faults)),
        transforms=({"type": "mask", "fields": ["database_name"]},),
        call={"plugins": [("observer", Observer())]},
    )
    assert [gap.database for gap in report.gaps] == ["bank"]
    assert len(seen) == 1
    assert [gap.database for gap in seen[0].gaps] != ["bank"]
    manifest = next((tmp_path / "lake" / "_manifests").iterdir()).read_text()
    assert "bank" not in manifest


def test_a_run_that_was_refused_everything_asks_anew_once_the_account_may_read(
    export: Export, serve: Callable[[Sandbox], str], call: Any
) -> None:
    """A scheduler gives the same run id again; refusals that were remembered would refuse it for ever."""
    refusing = Rule("/api/v2/databases/.+", Status(403))
    world, sinks = World(databases=2, tables=2), {"first": {"type": "fine"}}
    first = export(serve(Sandbox(world, faults=Faults(rules=[refusing]))), sinks=sinks, call=call)
    assert (first.exit_code, first.error) == (4, first.error)
    assert "403" in (first.error or "")

    report = export(serve(Sandbox(world)), sinks=sinks, stream=("tables",), call=call)

    assert (report.exit_code, report.gaps) == (0, ())
    assert report.streams["tables"].extracted == 4


def test_refusals_of_a_run_that_read_something_else_are_remembered(
    export: Export, serve: Callable[[Sandbox], str], call: Any
) -> None:
    rules = [
        Rule("/api/v2/databases/movr/grants", Status(403)),
        Rule("/api/v2/databases/movr/tables/users", Status(302)),
    ]
    world, sinks = World(databases=1, tables=2), {"first": {"type": "fine"}}
    assert export(serve(Sandbox(world, faults=Faults(rules=rules))), sinks=sinks, call=call).exit_code == 4

    well = Sandbox(world)
    report = export(serve(well), sinks=sinks, call=call)

    assert [(gap.part, gap.reason) for gap in report.gaps] == [("grants", "forbidden")]
    assert not well.hits["/api/v2/databases/movr/grants"]


def test_the_same_settings_from_python_are_the_same_settings(
    export: Export, url: str, offering: Any, mendable: Any
) -> None:
    """They hold tuples, which come back from the journal as lists."""

    class Listing(Transform):
        class Config(TransformConfig, frozen=True, kw_only=True):
            fields: tuple[str, ...] = ()

        def apply(self, batch: Batch) -> Any:
            return batch.data

    call = offering(transforms={"listing": Listing}, mendable=mendable)
    settings = {"sinks": {"second": {"type": "mendable"}}, "transforms": ({"type": "listing", "fields": ("a", "b")},)}
    assert export(url, **settings, call=call).exit_code == 5
    mendable.broken = False
    assert export(url, **settings, call=call).exit_code == 0


class Killed(BaseException):
    """In the place of a signal that nobody can catch."""


def test_what_a_killed_attempt_owed_to_a_sink_stays_owed(
    export: Export, url: str, call: Any, mendable: Any, monkeypatch: pytest.MonkeyPatch, run_directory: Path
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunState, "keep_report", die)
        export(url, sinks=BOTH, call=call)

    alone = export(url, sinks={"first": BOTH["first"]}, call=call)

    assert (alone.exit_code, alone.error) == (3, "sink second still lacks the run")
    assert (run_directory / "spool").exists()
    mendable.broken = False
    assert export(url, sinks=BOTH, call=call).exit_code == 0


@pytest.mark.slow
def test_a_reading_that_outlives_its_run_does_not_seal_it(
    export: Export, url: str, app: Sandbox, call: Any, monkeypatch: pytest.MonkeyPatch, run_directory: Path
) -> None:
    """Its spool is gone by then: an extraction without one could never be delivered."""
    monkeypatch.setattr("crdbexport.supervision.STOP_SECONDS", 0.1)
    sealing, go_on, stop = threading.Event(), threading.Event(), Stop()
    readers: list[threading.Thread] = []

    def slow(spool: Spool) -> None:
        readers.append(threading.current_thread())
        sealing.set()
        go_on.wait(5)

    def watch(progress: Any) -> None:
        if sealing.is_set():
            stop.request(15)

    keep_report = RunState.keep_report

    def keep_late(state: RunState, *args: Any, **kwargs: Any) -> None:
        go_on.set()
        readers[0].join(5)
        keep_report(state, *args, **kwargs)

    sinks = {"first": {"type": "fine"}}
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "sync", slow)
        patch.setattr(RunState, "keep_report", keep_late)
        assert export(url, sinks=sinks, call={**call, "stop": stop, "watch": watch}).exit_code == 143
    assert not readers[0].is_alive()
    assert not (run_directory / "spool").exists()
    asked = walked(app)

    report = export(url, sinks=sinks, call=call)

    assert (report.exit_code, walked(app)) == (0, asked)


@pytest.mark.slow
def test_requests_of_attempts_that_were_stopped_count_and_are_not_sent_again(
    export: Export, serve: Callable[[Sandbox], str], call: Any
) -> None:
    app = Sandbox(World(databases=1, tables=20), latency_seconds=0.02)
    stop = Stop()

    def watch(progress: Any) -> None:
        if walked(app) > 5:
            stop.request(2)

    settings = {"sinks": {"first": {"type": "fine"}}, "concurrency": 1}
    first = export(serve(app), **settings, call={**call, "stop": stop, "watch": watch})
    assert first.exit_code == 130
    # One may have been cut off on its way.
    assert 0 <= first.requests.total - app.hits.total() <= 1

    second = export(serve(app), **settings, call=call)

    assert second.exit_code == 0
    assert 0 <= second.requests.total - app.hits.total() <= 1
    assert walked(app) <= 4 + 20 + settings["concurrency"]


def walked(app: Sandbox) -> int:
    return sum(count for path, count in app.hits.items() if path.startswith("/api/v2/databases"))
