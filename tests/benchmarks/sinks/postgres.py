"""`postgres` beside the driver's own COPY into a temporary table, and one upsert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from crdbexport_postgres import PostgresSink

from crdbexport import Sink
from tests.benchmarks.sinks.target import Target

SCHEMA = "crdbexport"


def sink(target: Target) -> Sink:
    return PostgresSink(PostgresSink.Config(uri=target.address, schema=SCHEMA))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    table = f"{SCHEMA}.columns"
    changed = [name for name in data.schema.names if name != "record_id"]
    assignments = ", ".join(f"{name} = excluded.{name}" for name in changed)
    with closing(dbapi.connect(target.address)) as connection, closing(connection.cursor()) as cursor:
        cursor.adbc_ingest("arrived", data, mode="create", temporary=True)
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} (LIKE arrived, PRIMARY KEY (record_id))")
        cursor.execute(f"INSERT INTO {table} SELECT * FROM arrived ON CONFLICT (record_id) DO UPDATE SET {assignments}")
        gone = f"DELETE FROM {table} WHERE cluster = $1 AND extracted_at < $2"
        cursor.execute(gone, (target.run.cluster, target.run.extracted_at))
        connection.commit()


def run_ids(target: Target) -> Iterator[str]:
    with closing(dbapi.connect(target.address)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"SELECT run_id FROM {SCHEMA}.columns")
        for batch in cursor.fetch_record_batch():
            yield from batch.column(0).to_pylist()
