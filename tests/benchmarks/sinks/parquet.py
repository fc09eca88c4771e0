"""`parquet` beside pyarrow's ParquetWriter with the same settings, which publishes and sums up nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport import Sink
from crdbexport.sinks.parquet import ParquetSink
from tests.benchmarks.sinks.target import Target, grouped

DEFAULTS = ParquetSink.Config(path=Path())


def sink(target: Target) -> Sink:
    return ParquetSink(ParquetSink.Config(path=target.directory))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    write(target.directory / "columns.parquet", data, DEFAULTS.compression_level, DEFAULTS.row_group_rows)


def write(path: Path, data: pa.RecordBatchReader, level: int, group_rows: int) -> None:
    """A file as the sinks write it, in as few lines as it takes."""
    options = {"compression": "zstd", "compression_level": level, "write_page_checksum": True}
    with pq.ParquetWriter(path, data.schema, **options) as writer:
        for group in grouped(data, group_rows):
            writer.write_table(group, row_group_size=group_rows)


def run_ids(target: Target) -> Iterator[str]:
    for path in target.directory.rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            yield from file.read(columns=["run_id"]).column("run_id").to_pylist()
