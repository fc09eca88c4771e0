"""`deltalake` beside delta-rs' own `write_deltalake`, which takes the records as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
from crdbexport_deltalake import DeltaLakeSink
from deltalake import DeltaTable, WriterProperties, write_deltalake

from crdbexport import Sink
from tests.benchmarks.sinks.target import Target


def sink(target: Target) -> Sink:
    root, staging = target.directory / "tables", target.directory / "staging"
    mode: Literal["append", "merge"] = "merge" if target.merges else "append"
    return DeltaLakeSink(DeltaLakeSink.Config(root=str(root), mode=mode, staging_directory=staging))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    path = target.directory / "tables" / "columns"
    path.mkdir(parents=True, exist_ok=True)
    rules: dict[str, Any] = {"mode": "append"}
    if target.merges:
        rules = {"mode": "overwrite", "predicate": f"cluster = '{target.run.cluster}'"}
    write_deltalake(path, data, writer_properties=WriterProperties(compression="ZSTD"), **rules)


def run_ids(target: Target) -> Iterator[str]:
    table = DeltaTable(target.directory / "tables" / "columns")
    for batch in pa.RecordBatchReader.from_stream(table.scan(columns=["run_id"])):
        yield from batch.column(0).to_pylist()
