"""Whoever reads a lake while runs of one snapshot supersede each other sees whole runs, whatever the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.lane import Lane, LaneSink
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import SinkPluginManager
from crdbexport.sinks import publishing, recovery
from tests.pipeline.conftest import Nobody
from tests.proof.conftest import Part
from tests.proof.mutants import MUTANTS
from tests.proof.reader import ENGINES, STREAMS, Seen, rows_of
from tests.sinks.lake_support import a_run, an_outcome, parquet, records

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

COMMITS = 1_000
PATIENCE_SECONDS = 60.0
ROOT = Path(__file__).parents[2]
Tell = Callable[[str], None]


def publish(place: Path, number: int) -> None:
    """What a run does once it is read: a lane feeds the sink from the spool."""
    run_id = f"r{number}"
    run = a_run(run_id, streams=STREAMS)
    spool = Spool(place / "spool")
    for stream in STREAMS:
        spool.append(stream, of_run(records(stream, rows_of(run_id)), run_id))
    spool.seal()
    sink = parquet(place / "lake")
    hooks = SinkPluginManager(sink, "lake").hook
    told = LaneSink("lake", "parquet", "", "", sink, hooks)
    letters = DeadLetters(place / "letters", "lake")
    lane = Lane(told, replace(run, sink_name="lake"), spool, letters, Observers(Nobody()))
    lane.check()
    lane.begin(an_outcome)
    assert lane.ended.wait(PATIENCE_SECONDS)
    assert lane.status == "committed", lane.error
    shutil.rmtree(place / "spool")


def of_run(data: pa.RecordBatch, run_id: str) -> pa.RecordBatch:
    index = data.schema.get_field_index("run_id")
    return data.set_column(index, data.schema.field(index), pa.array([run_id] * data.num_rows))


@contextmanager
def readers(lake: Path, engines: Sequence[str]) -> Iterator[list[Seen]]:
    """Processes that read while the context lasts; what they saw is in the list afterwards."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    seen: list[Seen] = []
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.proof.reader", engine, str(lake)],
            cwd=ROOT,
            env={**environment, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for engine in engines
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield seen
    finally:
        told = [process.communicate()[0] for process in processes]
    seen += [msgspec.json.decode(each, type=Seen) for each in told]


def test_no_reader_ever_sees_a_part_of_a_run(
    tmp_path: Path, part: Part, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Commits follow each other the faster.
    commits, started = part.amount(COMMITS, at_least=60), time.monotonic()
    publish(tmp_path, 0)
    with readers(tmp_path / "lake", list(ENGINES)) as seen:
        for number in range(1, commits + 1):
            publish(tmp_path, number)
    told = "; ".join(
        f"{e.engine} {e.views} views of {e.runs} runs, {e.both} of two, {len(e.partial)} partial" for e in seen
    )
    tell(f"readers during {commits} commits: {told}; {time.monotonic() - started:.0f} s")
    assert [each.partial for each in seen] == [[], [], []]
    assert min(each.views for each in seen) > commits // 20
    assert min(each.runs for each in seen) > commits // 40


def test_a_reader_finds_the_moment_at_which_a_planted_mistake_shows_nothing(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (publishing, recovery):
        monkeypatch.setattr(module, "roll_forward", recovery.roll_forward)  # So that it is put back.
    MUTANTS["the superseded run removed first"].plant()
    publish(tmp_path, 0)
    started, number = time.monotonic(), 0
    with readers(tmp_path / "lake", ["PyArrow"]) as seen:
        while time.monotonic() - started < 4:
            number += 1
            publish(tmp_path, number)
    tell(f"mutant 'the superseded run removed first': {len(seen[0].partial)} of {seen[0].views} views show nothing")
    assert seen[0].partial
