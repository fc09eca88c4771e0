"""An account that lost privileges is answered with fewer rows and no error; the run says so all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crdbexport import Outcome, RunReport, Sink, SinkError, hookimpl
from crdbexport.sandbox.native import Generation, NativeSandbox, Quirks
from crdbexport.sandbox.world import World

Export = Callable[..., RunReport]
pytestmark = pytest.mark.slow

LOST = "did the account lose privileges? If this is to be expected, add --allow-shrink to the next run"


@pytest.fixture(params=[pytest.param("v22", marks=pytest.mark.slow), "v25"])
def generation(request: pytest.FixtureRequest) -> Generation:
    chosen: Generation = request.param
    return chosen


@pytest.fixture
def url(serve: Callable[[Any], str], generation: Generation) -> str:
    """The cluster as an account with every privilege sees it."""
    return serve(NativeSandbox(World(2, 4), generation=generation))


@pytest.fixture
def seen_less(serve: Callable[[Any], str], generation: Generation) -> str:
    """The same cluster for an account that sees two tables of eight, and both databases."""
    hidden = [f"{database}.{table}" for database in ("movr", "bank") for table in _tables(database)[1:]]
    return serve(NativeSandbox(World(2, 4), generation=generation, quirks=Quirks(hidden_tables=hidden)))


def _tables(database: str) -> list[str]:
    return [f"{each.schema_name}.{each.name}" for each in World(2, 4).tables(database)]


class Keeping(Sink):
    """Keeps the outcome of each run that committed, as a sink that keeps state would look at it; may be broken."""

    outcomes: ClassVar[list[Outcome]]
    broken: ClassVar[bool]

    def write(self, batch: Any) -> None:
        pass

    def commit(self, outcome: Outcome) -> None:
        if self.broken:
            raise SinkError("down")
        self.outcomes.append(outcome)


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> type[Keeping]:
    monkeypatch.setattr(Keeping, "outcomes", [], raising=False)
    monkeypatch.setattr(Keeping, "broken", False, raising=False)
    return Keeping


@pytest.fixture
def export_to(export: Export, keeping: type[Keeping]) -> Export:
    """Exports into sinks of which those of type `keeping` keep the outcome."""

    class Mine:
        @hookimpl
        def crdbexport_register_sinks(self, register: Callable[[str, type[Sink]], None]) -> None:
            register("keeping", keeping)

    def run(url: str, *types: str, **changes: Any) -> RunReport:
        sinks = {f"s{number}": {"type": each} for number, each in enumerate(types or ("keeping",))}
        return export(url, **{"sinks": sinks, "call": {"plugins": [("mine", Mine())]}, **changes})

    return run


def shrunk(report: RunReport) -> dict[str, tuple[int, int, str]]:
    return {each.stream: (each.before, each.now, each.since_run_id) for each in report.shrunk}


def test_a_night_that_sees_less_is_incomplete_and_so_is_the_next_one(
    export: Export, url: str, seen_less: str, tmp_path: Path
) -> None:
    first = export(url, run_id="r1", logical_time="2026-03-05")
    second = export(seen_less, run_id="r2", logical_time="2026-03-06")
    third = export(seen_less, run_id="r3", logical_time="2026-03-07")

    assert (first.exit_code, first.shrunk) == (0, ())
    for report in (second, third):
        assert (report.status, report.exit_code, report.gaps) == ("incomplete", 3, ())
        assert shrunk(report)["tables"] == (8, 2, "r1")
        assert "databases" not in shrunk(report)
        assert report.error and "tables shrank from 8 to 2 records" in report.error
        assert report.error.endswith(f'since run "r1": {LOST}')
    manifests = {path.name: json.loads(path.read_bytes()) for path in (tmp_path / "lake" / "_manifests").iterdir()}
    assert {name: each["complete"] for name, each in manifests.items()} == {
        "c1.r1.json": True,
        "c1.r2.json": False,
        "c1.r3.json": False,
    }


def test_on_the_same_day_the_complete_snapshot_stays(export: Export, url: str, seen_less: str, tmp_path: Path) -> None:
    export(url, run_id="r1")
    report = export(seen_less, run_id="r2")

    assert (report.status, report.exit_code, report.sinks[0].status) == ("incomplete", 3, "aborted")
    assert report.error and "keeps the complete snapshot" in report.error
    assert "tables shrank from 8 to 2 records" in report.error
    assert [path.name for path in (tmp_path / "lake" / "_manifests").iterdir()] == ["c1.r1.json"]

    allowed = export(seen_less, run_id="r2", allow_shrink=True)

    assert (allowed.exit_code, allowed.sinks[0].status) == (0, "committed")
    assert [path.name for path in (tmp_path / "lake" / "_manifests").iterdir()] == ["c1.r2.json"]


def test_an_allowed_shrink_is_told_and_is_the_measure_from_then_on(export_to: Export, url: str, seen_less: str) -> None:
    export_to(url, run_id="r1")
    allowed = export_to(seen_less, run_id="r2", allow_shrink=True)
    after = export_to(seen_less, run_id="r3")

    assert (allowed.status, allowed.exit_code, allowed.error) == ("complete", 0, None)
    assert shrunk(allowed)["tables"] == (8, 2, "r1")
    assert (after.exit_code, after.shrunk) == (0, ())


def test_a_cluster_that_is_seen_in_full_again_is_complete(export_to: Export, url: str, seen_less: str) -> None:
    codes = [export_to(each, run_id=f"r{n}").exit_code for n, each in enumerate((url, seen_less, url, seen_less))]

    assert codes == [0, 3, 0, 3]


def test_a_sink_that_keeps_state_is_told_of_nothing_that_is_gone(
    export_to: Export, url: str, seen_less: str, keeping: type[Keeping]
) -> None:
    export_to(url, run_id="r1")
    export_to(seen_less, run_id="r2")
    export_to(seen_less, run_id="r3", allow_shrink=True)

    whole, less, allowed = keeping.outcomes
    assert [each.complete for each in keeping.outcomes] == [True, False, True]
    # Also of the streams that did not shrink, or not by so much.
    assert {each.covers("movr") for each in less.coverage.values()} == {False}
    assert less.coverage.keys() == whole.coverage.keys() == less.rows.keys()
    for outcome in (whole, allowed):
        assert {each.covers("movr") for each in outcome.coverage.values()} == {True}


def test_another_selection_is_not_compared(export_to: Export, url: str, seen_less: str) -> None:
    export_to(url, run_id="r1")

    part = export_to(url, run_id="r2", database=("movr",), stream=("tables",))
    assert (part.exit_code, part.streams["tables"].extracted, part.shrunk) == (0, 4, ())
    # The part is a measure of its own, and has taken nothing from that of the whole.
    assert shrunk(export_to(seen_less, run_id="r3", database=("movr",))) == {"tables": (4, 1, "r2")}
    assert shrunk(export_to(seen_less, run_id="r4", stream=("tables",))) == {"tables": (8, 2, "r1")}


def test_databases_that_are_hidden_altogether_are_missed(
    export_to: Export, url: str, serve: Callable[[Any], str], generation: Generation
) -> None:
    export_to(url, run_id="r1")
    quirks = Quirks(hidden_databases=World(2, 4).database_names())
    report = export_to(serve(NativeSandbox(World(2, 4), generation=generation, quirks=quirks)), run_id="r2")

    assert report.exit_code == 3
    assert {now for _, now, _ in shrunk(report).values()} == {0}
    assert set(shrunk(report)) == set(report.streams)


def test_a_run_that_nobody_took_is_no_measure(
    export_to: Export, url: str, seen_less: str, keeping: type[Keeping]
) -> None:
    keeping.broken = True
    assert export_to(url, run_id="r1").exit_code == 5
    keeping.broken = False

    assert export_to(seen_less, run_id="r2").exit_code == 0


def test_an_attempt_that_only_delivers_gives_the_verdict_of_the_reading(
    export_to: Export, url: str, seen_less: str, keeping: type[Keeping]
) -> None:
    export_to(url, run_id="r1")
    keeping.broken = True
    assert export_to(seen_less, run_id="r2").exit_code == 5
    keeping.broken = False
    # Meanwhile the measure moves.
    assert export_to(seen_less, run_id="r3", allow_shrink=True).exit_code == 0

    late = export_to(seen_less, run_id="r2")

    assert (late.exit_code, shrunk(late)["tables"]) == (3, (8, 2, "r1"))
    assert not keeping.outcomes[-1].complete
    assert export_to(seen_less, run_id="r2") == late
    assert export_to(seen_less, run_id="r4").exit_code == 0


def test_a_sink_that_was_down_does_not_hide_the_shrink(
    export_to: Export, url: str, seen_less: str, keeping: type[Keeping], tmp_path: Path
) -> None:
    export_to(url, run_id="r1")
    sinks = {"lines": {"type": "jsonl", "path": str(tmp_path / "lines")}, "s0": {"type": "keeping"}}
    keeping.broken = True
    first = export_to(seen_less, run_id="r2", sinks=sinks)
    keeping.broken = False
    second = export_to(seen_less, run_id="r2", sinks=sinks)

    assert [sink.status for sink in first.sinks] == ["committed", "failed"]
    assert first.error and first.error.startswith("sink s0 failed: down; ")
    assert [sink.status for sink in second.sinks] == ["committed", "committed"]
    assert (second.exit_code, second.shrunk) == (3, first.shrunk)
    assert first.shrunk


@pytest.mark.parametrize("generation", ["v25"], indirect=True)
def test_the_command_tells_what_shrank_and_takes_the_flag(
    run_cli: Callable[..., Any], url: str, seen_less: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")

    def run(url: str, *more: str) -> Any:
        sink = ["--sink", f"parquet:{tmp_path / 'lake'}", "--stream", "tables"]
        return run_cli("export", "--url", url, "--cluster", "c1", "--username", "demo", *sink, *more)

    assert run(url, "--run-id", "r1", "--logical-time", "2026-03-05").exit_code == 0
    lost = run(seen_less, "--run-id", "r2")
    allowed = run(seen_less, "--run-id", "r3", "--allow-shrink")

    assert (lost.exit_code, allowed.exit_code) == (3, 0)
    assert "\n  tables shrank from 8 to 2 records since run r1\n" in lost.err
    assert f'\nincomplete: tables shrank from 8 to 2 records since run "r1": {LOST}\n' in lost.err
    assert "\n  tables shrank from 8 to 2 records since run r1\n" in allowed.err
    assert "privileges" not in allowed.err
