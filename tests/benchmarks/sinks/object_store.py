"""`object-store` beside the shortest way to the same file: a ParquetWriter onto local disk, then `obstore.put`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from crdbexport_object_store import ObjectStoreSink
from crdbexport_object_store.options import ObjectStoreConfig, client_settings, store_settings
from obstore.store import ObjectStore, from_url

from crdbexport import Sink
from crdbexport.config import Secret
from tests.benchmarks.sinks.parquet import write
from tests.benchmarks.sinks.target import Target

BUCKET = "bench"


def config(target: Target) -> ObjectStoreConfig:
    return ObjectStoreConfig(
        url=f"s3://{BUCKET}/lake",
        endpoint=target.address,
        region="us-east-1",
        allow_http=True,
        access_key_id=Secret("exporter"),
        secret_access_key=Secret("exporter"),
        staging_dir=target.directory / "staging",
    )


def sink(target: Target) -> Sink:
    return ObjectStoreSink(config(target))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    path, settings = target.directory / "columns.parquet", config(target)
    write(path, data, settings.compression_level, settings.row_group_rows)
    obstore.put(store(target), "columns.parquet", path, chunk_size=settings.part_bytes)


def store(target: Target) -> ObjectStore:
    settings = config(target)
    client: Any = client_settings(settings, quick=False)
    opened: ObjectStore = from_url(settings.url, config=store_settings(settings), **client)  # type: ignore[call-overload]
    return opened


def run_ids(target: Target) -> Iterator[str]:
    bucket = store(target)
    for listed in (each for page in obstore.list(bucket) for each in page):
        if listed["path"].endswith(".parquet"):
            data = bytes(obstore.get(bucket, listed["path"]).bytes())
            # Arrow's threads would still hold a Python file while the interpreter ends, and abort it.
            with pq.ParquetFile(pa.BufferReader(data)) as file:
                yield from file.read(["run_id"], use_threads=False).column("run_id").to_pylist()
