"""Delivers a run in a process of its own: `python delivering.py MODE ROOT RUN ROWS [kill AT | room BYTES | at TIME]`.

Prints the calls that the commit made out of Python.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

from crdbexport_deltalake import DeltaLakeSink

from crdbexport import Batch, Coverage, Outcome
from crdbexport.selection import Selection
from crdbexport.testing import records, sample_run
from crdbexport.testing.children import without_room
from crdbexport.testing.faults import KilledInCommit

STREAMS = ("databases", "tables")


def main(mode: str, root: str, number: str, rows: str, fault: str = "", value: str = "0") -> None:
    run = sample_run(f"r{number}", streams=STREAMS, extracted_at=sample_run().extracted_at + timedelta(int(number)))
    own = DeltaLakeSink(DeltaLakeSink.Config(root=root, mode=mode, staging_directory=Path(root).parent / "staging"))
    sink = KilledInCommit(own, int(value) if fault == "kill" else 0)
    sink.preflight(run)
    sink.open(run)
    for stream in STREAMS:
        sink.write(Batch(stream, 0, records(stream, int(rows), run=run)), run)
    if fault == "room":
        without_room(int(value))
    if fault == "at":
        time.sleep(max(0.0, float(value) - time.time()))
    try:
        sink.commit(run, Outcome(True, (), dict.fromkeys(STREAMS, Coverage(Selection())), {}))
    except BaseException as error:
        sink.abort(run, error)
        raise
    print(sink.seen)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
