"""How fast the sink is beside the driver's own way to the same result; run it by hand, on a quiet machine:

    python plugins/crdbexport-postgres/tests/bench_postgres.py [RECORDS]

Both ways read the same batches from a file, bring them into the same temporary table, and merge them with the same
statement: once into an empty table, once over the records of the run before. The sink also looks for what cannot be
stored, keeps the run on disk until it commits, and deletes what is gone. Each run has a process of its own, whose peak
of memory is told; the server is another process.
"""
# ruff: noqa: T201 - it is made to print.

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from crdbexport_postgres import PostgresSink
from crdbexport_postgres.local_server import local_server
from crdbexport_postgres.session import session
from crdbexport_postgres.tables import StreamTable

from crdbexport import Batch, Coverage, Outcome, Run
from crdbexport.selection import Selection
from crdbexport.testing import records, sample_run

STREAM = "columns"
RECORDS, BATCH_ROWS = 1_000_000, 2_000
WAYS = ("driver", "sink")


def run_of(number: int) -> Run:
    first = sample_run(f"run-{number}", streams=[STREAM])
    return replace(first, extracted_at=first.extracted_at + timedelta(days=number))


def main(count: int) -> None:
    print(f"{count:,} records of {STREAM}")
    with tempfile.TemporaryDirectory() as directory, local_server() as server:
        seconds: dict[tuple[str, int], float] = {}
        for number in (1, 2):
            file = Path(directory) / f"{number}.arrows"
            write_records(file, run_of(number), count)
            for way in WAYS:
                told = measured(way, server.uri(), file, number)
                seconds[way, number] = told["seconds"]
                print(f"run {number}, {way}: {told['seconds']:.1f} s, peak {told['peak_mib']:.0f} MiB")
            ratio = seconds["driver", number] / seconds["sink", number]
            print(f"run {number}: the sink has {ratio:.0%} of the driver's speed")


def write_records(file: Path, run: Run, count: int) -> None:
    with file.open("wb") as sink, pa.ipc.new_stream(sink, run.streams[STREAM]) as writer:
        for first in range(0, count, BATCH_ROWS):
            writer.write_batch(records(STREAM, min(BATCH_ROWS, count - first), run=run, first=first))


def measured(way: str, uri: str, file: Path, number: int) -> dict[str, float]:
    command = [sys.executable, __file__, way, uri, str(file), str(number)]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told


def one_run(way: str, uri: str, file: Path, number: int) -> None:
    began = time.monotonic()
    (by_driver if way == "driver" else by_sink)(uri, file, run_of(number))
    seconds = time.monotonic() - began
    print(json.dumps({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def by_driver(uri: str, file: Path, run: Run) -> None:
    with closing(dbapi.connect(uri)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS driver")
        connection.commit()
    with session(uri, "driver", 60.0) as opened, batches(file) as reader:
        table = StreamTable(opened, "driver", STREAM, run.streams[STREAM])
        table.stage(reader)
        if run.run_id == "run-1":
            table.migrate(None)
        table.merge()
        opened.commit()


def by_sink(uri: str, file: Path, run: Run) -> None:
    sink = PostgresSink(PostgresSink.Config(uri=uri, schema="sink"))
    sink.preflight(run)
    sink.open(run)
    with batches(file) as reader:
        for sequence, data in enumerate(reader):
            sink.write(Batch(STREAM, sequence, data))
    sink.commit(run, Outcome(True, (), {STREAM: Coverage(Selection())}, {}))


@contextmanager
def batches(file: Path) -> Iterator[pa.RecordBatchReader]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        yield reader


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one_run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
