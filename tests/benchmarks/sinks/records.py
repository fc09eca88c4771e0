"""The records that every sink is given: `python -m tests.benchmarks.sinks.records FILE STEP COUNT` writes them.

Both sides read the same file, batch by batch, so that neither waits for records to be made. The second run was read a
day after the first; meanwhile every hundredth table was dropped, and as many are new.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from crdbexport import Run
from crdbexport.pipeline.batches import BATCH_ROWS, Batcher, Envelope
from crdbexport.testing.samples import sample_run

STREAM = "columns"
COLUMNS, TABLES = 20, 1_000  # of a table, of a database
TYPES = ("INT8", "STRING", "TIMESTAMPTZ", "DECIMAL(10,2)", "UUID", "VARCHAR(64)", "BOOL", "JSONB")


def run_of(step: int) -> Run:
    """The run that is delivered first (0) or next (1)."""
    first = sample_run(f"run-{step + 1}", streams=[STREAM])
    return replace(first, extracted_at=first.extracted_at + timedelta(days=step))


def rows(first: int, count: int) -> Iterator[tuple[Any, ...]]:
    """Columns of tables that begin at the column with the number `first`."""
    for number in range(first, first + count):
        table, column = divmod(number, COLUMNS)
        database = f"app_{table // TABLES:03d}"
        of_table = (database, "public", f"orders_{table % TABLES:04d}", f"column_{column:02d}")
        yield (*of_table, column + 1, TYPES[number % len(TYPES)], column > 3, column == 0, None, None)


def write(file: Path, step: int, count: int) -> None:
    """Write the batches of a run as the pipeline makes them."""
    run = run_of(step)
    batcher = Batcher(Envelope(run.cluster, run.run_id, run.logical_time, run.extracted_at))
    left = rows(step * (count // 100 // COLUMNS) * COLUMNS, count)
    with pa.OSFile(str(file), "wb") as target, pa.ipc.new_stream(target, run.streams[STREAM]) as writer:
        while part := list(islice(left, BATCH_ROWS)):
            for _, batch in batcher.add(STREAM, part):
                writer.write_batch(batch)
        for _, batch in batcher.finish():
            writer.write_batch(batch)


@contextmanager
def reading(file: Path, count: int) -> Iterator[pa.RecordBatchReader]:
    """The first `count` records of a file."""

    def batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        left = count
        for batch in reader:
            yield batch.slice(0, left)
            left -= batch.num_rows
            if left <= 0:
                return

    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        yield pa.RecordBatchReader.from_batches(reader.schema, batches(reader))


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
