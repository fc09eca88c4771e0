"""Processes that commit at once; each is a real one of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STREAMS = ("databases", "tables")
ROWS = 3
PROGRAM = """
import sys, time
from pathlib import Path
from datetime import timedelta
from crdbexport import Batch, Coverage, Outcome
from crdbexport.config import Secret
from crdbexport.selection import Selection
from crdbexport.testing import records, sample_run
from crdbexport_iceberg import IcebergSink

root, mode, number, rows, at = sys.argv[1:]
properties = {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}
streams = ("databases", "tables")
run = sample_run(f"r{number}", streams=streams, extracted_at=sample_run().extracted_at + timedelta(int(number)))
sink = IcebergSink(IcebergSink.Config(
    namespace="crdb", mode=mode, properties={name: Secret(value) for name, value in properties.items()},
    staging_directory=Path(root) / "staging",
))
sink.preflight(run)
sink.open(run)
for stream in streams:
    sink.write(Batch(stream, 0, records(stream, int(rows), run=run)))
time.sleep(max(0.0, float(at) - time.time()))
try:
    sink.commit(run, Outcome(True, (), dict.fromkeys(streams, Coverage(Selection())), {}))
finally:
    sink.abort()
"""


def begin(root: Path, mode: str, run: int, at: float) -> subprocess.Popen[str]:
    arguments = [root, mode, run, ROWS, at]
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def deliver_at_once(root: Path, mode: str, runs: list[int]) -> None:
    root.mkdir()
    # The tables of the catalog itself are made by the first process that opens it, and not by two at once.
    with load_catalog("default", **properties(root)):
        pass
    at = time.time() + 6
    processes = [begin(root, mode, run, at) for run in runs]
    told = [each.communicate(timeout=120)[1] for each in processes]
    assert [each.returncode for each in processes] == [0] * len(runs), told


def properties(root: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


def counts(root: Path, stream: str) -> dict[str, int]:
    with load_catalog("default", **properties(root)) as catalog:
        found = catalog.load_table(f"crdb.{stream}").scan(selected_fields=("run_id",)).to_arrow()
    return dict(Counter(found.column("run_id").to_pylist()))


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_processes_that_deliver_the_same_run_at_once_deliver_it_once(tmp_path: Path, mode: str) -> None:
    deliver_at_once(tmp_path / "lake", mode, [1, 1, 1])
    assert [counts(tmp_path / "lake", stream) for stream in STREAMS] == [{"r1": ROWS}] * 2


def test_runs_that_are_delivered_at_once_are_all_kept(tmp_path: Path) -> None:
    deliver_at_once(tmp_path / "lake", "append", [1, 2, 3])
    assert [counts(tmp_path / "lake", stream) for stream in STREAMS] == [{"r1": ROWS, "r2": ROWS, "r3": ROWS}] * 2
