"""`duckdb` beside DuckDB's own statements over Arrow: into a temporary table, then merged in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import duckdb
import pyarrow as pa
from crdbexport_duckdb import DuckDBSink

from crdbexport import Sink
from tests.benchmarks.sinks.target import Target

STATEMENTS = (
    "CREATE TEMPORARY TABLE arrived AS FROM arriving",
    "BEGIN",
    "CREATE TABLE IF NOT EXISTS columns AS FROM arrived LIMIT 0",
    "MERGE INTO columns USING arrived USING (record_id) WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT",
)


def sink(target: Target) -> Sink:
    return DuckDBSink(DuckDBSink.Config(path=target.directory / "clusters.duckdb"))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    with closing(duckdb.connect(target.directory / "clusters.duckdb")) as connection:
        connection.register("arriving", data)
        for sql in STATEMENTS:
            connection.execute(sql)
        gone = "DELETE FROM columns WHERE cluster = ? AND extracted_at < ?"
        connection.execute(gone, [target.run.cluster, target.run.extracted_at])
        connection.execute("COMMIT")


def run_ids(target: Target) -> Iterator[str]:
    with closing(duckdb.connect(target.directory / "clusters.duckdb", read_only=True)) as connection:
        yield from (each for (each,) in connection.execute("SELECT run_id FROM columns").fetchall())
