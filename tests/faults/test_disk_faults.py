"""Places that cannot be written: found before the first request where they can be, and never half a run published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from crdbexport.errors import CrdbExportError
from tests.faults.behaviours import KEEP
from tests.faults.conftest import Export
from tests.faults.fault_server import FaultServer, Rule, Step, whole
from tests.faults.promises import assert_secrets_kept
from tests.faults.small_world import documented, on_the_wire
from tests.faults.suffered import Suffered, files

WORLD = on_the_wire(documented())


def a_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    return path


def a_loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file": lambda place: a_file(place / "lake"),
    "below a file": lambda place: a_file(place / "x") / "lake",
    "a link to itself": lambda place: a_loop(place / "lake"),
    "a name of 300 bytes": lambda place: place / ("x" * 300),
    "read-only": lambda place: Path("/proc/crdbexport/lake"),
    "a file for the staging": lambda place: a_file(place / "lake/_staging").parent,
    "a file for the manifests": lambda place: a_file(place / "lake/_manifests").parent,
    "a file for a stream": lambda place: a_file(place / "lake/tables").parent,
}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_written_is_refused_before_the_first_request(
    place: Callable[[Path], Path], kind: str, suffer: Export, tmp_path: Path
) -> None:
    server = FaultServer(WORLD)
    sinks = {
        "here": {"type": kind, "target": str(place(tmp_path))},
        "there": {"type": "jsonl", "target": str(tmp_path / "there")},
    }
    with pytest.raises(CrdbExportError) as caught:
        suffer(server, sinks=sinks)
    assert caught.value.exit_code == 2
    assert "sink here" in str(caught.value)
    assert (server.connections, server.requests) == (0, [])
    assert [path for path in files(tmp_path / "there") if path.suffix != ".lock"] == []


def assert_failed_alone(run: Suffered) -> None:
    """The lake has failed and shows nothing; the other sink has everything."""
    lake, lines = run.report.sinks
    assert (run.report.exit_code, run.report.status) == (3, "incomplete")
    assert (lake.status, lines.status) == ("failed", "committed")
    assert str(run.place / "lake") in (lake.error or "")
    assert not list(run.place.glob("lake/_manifests/*.json")) + list(run.place.glob("lake/*/date=*/*"))
    assert len(list(run.place.glob("lines/_manifests/*.json"))) == 1
    assert_secrets_kept(run)


def test_state_that_cannot_be_written_is_refused_before_the_first_request(suffer: Export, tmp_path: Path) -> None:
    server = FaultServer(WORLD)
    with pytest.raises(CrdbExportError, match="--state-dir") as caught:
        suffer(server, state_dir=a_file(tmp_path / "held"))
    assert caught.value.exit_code == 2
    assert server.connections == 0


def while_reading(suffer: Export, sabotage: Callable[[], object], at: str = "/databases/movr/tables/users") -> Suffered:
    """An export to whose files something happens while the cluster is read."""

    def act(body: bytes) -> tuple[Step, ...]:
        sabotage()
        return whole(body), KEEP

    run = suffer(FaultServer(WORLD, [Rule(at, [act])]))
    assert run.server.struck == {at: 1}
    return run


def replaced(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    a_file(directory)


@pytest.mark.parametrize("part", ["", "tables", "_manifests", "_staging"])
def test_a_sink_whose_place_is_taken_away_fails_alone(part: str, suffer: Export, tmp_path: Path) -> None:
    assert_failed_alone(while_reading(suffer, lambda: replaced(tmp_path / "lake" / part)))


def test_without_its_spool_a_run_publishes_nothing_and_may_be_run_again(suffer: Export, tmp_path: Path) -> None:
    run = while_reading(suffer, lambda: replaced(tmp_path / "state/runs/c1.r1/spool"), "/databases")
    assert (run.report.exit_code, run.report.status) == (5, "failed")
    assert {sink.status for sink in run.report.sinks} <= {"aborted", "failed"}
    assert not list(tmp_path.glob("*/_manifests/*.json")) + list(tmp_path.glob("*/*/date=*/*"))
