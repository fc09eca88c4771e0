"""The sink beside pyiceberg itself, over the same records: `python bench_iceberg.py [RECORDS]`, on a quiet machine.

Each side works in a process of its own, which makes its records as it goes; what making them takes is told, too.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from crdbexport import Batch, Coverage, Outcome
from crdbexport.config import Secret
from crdbexport.selection import Selection
from crdbexport.testing import records, sample_run

RUN = sample_run(streams=["columns"])
SCHEMA = RUN.streams["columns"]
BATCH = 10_000


def batches(count: int) -> Iterator[pa.RecordBatch]:
    first = records("columns", min(BATCH, count), run=RUN)
    at = SCHEMA.get_field_index("column_name")
    for number in range(0, count, BATCH):
        names = pa.array([f"column_{each}" for each in range(number, number + first.num_rows)])
        ids = pa.array([f"{each:032x}" for each in range(number, number + first.num_rows)])
        yield first.set_column(at, SCHEMA.field(at), names).set_column(4, SCHEMA.field(4), ids)


def generate(count: int, root: Path) -> None:
    for _ in batches(count):
        pass


def properties(root: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


def library(count: int, root: Path) -> None:
    from pyiceberg.catalog import load_catalog

    with load_catalog("bench", **properties(root)) as catalog:
        catalog.create_namespace("crdb")
        table = catalog.create_table("crdb.columns", SCHEMA)
        table.append(pa.RecordBatchReader.from_batches(SCHEMA, batches(count)))


def sink(count: int, root: Path, mode: str = "append") -> None:
    from crdbexport_iceberg import IcebergSink

    told = {name: Secret(value) for name, value in properties(root).items()}
    ours = IcebergSink(
        IcebergSink.Config(namespace="crdb", properties=told, mode=mode, staging_directory=root / "staging")
    )
    ours.preflight(RUN)
    ours.open(RUN)
    for sequence, batch in enumerate(batches(count)):
        ours.write(Batch("columns", sequence, batch))
    ours.commit(RUN, Outcome(True, (), {"columns": Coverage(Selection())}, {}))


def merge(count: int, root: Path) -> None:
    sink(count, root, "merge")


SIDES = {each.__name__: each for each in (generate, library, sink, merge)}


def main(count: int) -> None:
    for side in SIDES:
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([sys.executable, __file__, str(count), side, directory], check=True)


def measured(count: int, side: str, root: Path) -> None:
    began = time.perf_counter()
    SIDES[side](count, root)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{side:10} {count / seconds:12,.0f} records/s {seconds:8.1f} s {peak:8,.0f} MB at most")  # noqa: T201


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 3:
        measured(wanted, sys.argv[2], Path(sys.argv[3]))
    else:
        main(wanted)
