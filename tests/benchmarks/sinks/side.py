"""One side's delivery of one run, a process of its own: `python -m tests.benchmarks.sinks.side TASK`, TASK in JSON.

Tells the seconds of the delivery alone, from the first look at the target to the end of the commit, and the peak of
memory until then. After that it counts what is there.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from crdbexport import Batch, Coverage, Outcome, Run, Sink
from crdbexport.plugin_manager import SinkPluginManager
from crdbexport.selection import Selection
from tests.benchmarks.measuring import MIB_OF_MAXRSS
from tests.benchmarks.sinks.records import STREAM, reading, run_of
from tests.benchmarks.sinks.target import Target


def deliver(sink: Sink, run: Run, data: pa.RecordBatchReader) -> None:
    """Lead the sink through a run as its lane does."""
    hook = SinkPluginManager(sink, "bench").hook
    hook.preflight(run=run)
    hook.open(run=run)
    rows = 0
    for sequence, batch in enumerate(data):
        hook.write(batch=Batch(STREAM, sequence, batch), run=run)
        rows += batch.num_rows
    hook.commit(run=run, outcome=Outcome(True, (), {STREAM: Coverage(Selection())}, {STREAM: rows}))


def delivered(module: Any, side: str, target: Target, data: pa.RecordBatchReader) -> None:
    if side == "ours":
        deliver(module.sink(target), target.run, data)
    elif side == "library":
        module.library(target, data)
    else:
        for _ in data:
            """Reading them is all."""


def main(task: dict[str, Any]) -> dict[str, Any]:
    module = importlib.import_module(f"tests.benchmarks.sinks.{task['module']}")
    pa.array([0])  # With the first array, pyarrow imports pandas wherever it is installed.
    target = Target(Path(task["directory"]), task["address"], task["mode"], run_of(task["step"]))
    with reading(Path(task["source"]), task["count"]) as data:
        begun = time.perf_counter()
        delivered(module, task["side"], target, data)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB_OF_MAXRSS
    found = Counter(module.run_ids(target)) if task["side"] != "reading" else {}
    return {"seconds": seconds, "peak_mib": peak, "found": found, "run_id": target.run.run_id}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
