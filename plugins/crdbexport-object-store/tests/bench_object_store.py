# ruff: noqa: T201 (it is run by hand)
"""Measures the sink beside pyarrow and obstore by hand: `python tests/bench_object_store.py [--rows 1000000]`.

Each contender runs in a process of its own, against an S3 server of this machine, with the same batches, which are
made as they are needed. The other way is the shortest one to the same file: a `ParquetWriter` with the same
compression onto local disk, then `obstore.put`; it checks nothing, sums nothing up, and commits nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))
BATCH_ROWS = 10_000
STREAM = "columns"


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """Columns of wide tables, as a large cluster has them."""
    from crdbexport.testing.samples import records, sample_run

    run = sample_run(streams=[STREAM])
    for first in range(0, rows, BATCH_ROWS):
        yield records(STREAM, min(BATCH_ROWS, rows - first), run=run, first=first)


def with_the_sink(endpoint: str, bucket: str, rows: int) -> float:
    from crdbexport_object_store import ObjectStoreSink

    from crdbexport import Batch
    from crdbexport.testing.feed import outcome_of
    from crdbexport.testing.samples import sample_run

    run = sample_run(streams=[STREAM])
    sink = ObjectStoreSink(config_of(endpoint, bucket))

    def work(data: Iterator[pa.RecordBatch]) -> None:
        sink.preflight(run)
        sink.open(run)
        for number, batch in enumerate(data):
            sink.write(Batch(STREAM, number, batch))
        sink.commit(run, outcome_of(run, []))

    return timed(work, rows)


def with_pyarrow_and_obstore(endpoint: str, bucket: str, rows: int) -> float:
    import obstore
    import pyarrow.parquet as pq
    from crdbexport_object_store.options import client_settings, store_settings
    from obstore.store import from_url

    config = config_of(endpoint, bucket)

    def work(data: Iterator[pa.RecordBatch]) -> None:
        store = from_url(config.url, config=store_settings(config), **client_settings(config, quick=False))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "columns.parquet"
            writer = None
            for batch in data:
                writer = writer or pq.ParquetWriter(path, batch.schema, compression="zstd", compression_level=3)
                writer.write_batch(batch)
            if writer is not None:
                writer.close()
            obstore.put(store, "other/columns.parquet", path, chunk_size=config.part_bytes)

    return timed(work, rows)


def timed(work: Callable[[Iterator[pa.RecordBatch]], None], rows: int) -> float:
    """The seconds that the work takes, without those in which its batches are made."""
    made = 0.0

    def watched() -> Iterator[pa.RecordBatch]:
        nonlocal made
        source = batches(rows)
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            made += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    began = time.perf_counter()
    work(watched())
    return time.perf_counter() - began - made


def config_of(endpoint: str, bucket: str) -> Any:
    from crdbexport_object_store.options import ObjectStoreConfig

    from crdbexport.config import Secret

    return ObjectStoreConfig(
        url=f"s3://{bucket}/lake",
        endpoint=endpoint,
        region="us-east-1",
        allow_http=True,
        access_key_id=Secret("exporter"),
        secret_access_key=Secret("exporter"),
    )


def measured(contender: Callable[..., float], arguments: tuple[Any, ...]) -> tuple[float, float]:
    """Seconds, and the peak of memory in MiB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_report, args=(contender, arguments, results))
    process.start()
    seconds, peak = results.get()
    process.join()
    return seconds, peak


def _report(contender: Callable[..., float], arguments: tuple[Any, ...], results: Any) -> None:
    seconds = contender(*arguments)
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    import boto3
    from conftest import s3_server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with s3_server() as endpoint:
        client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.create_bucket(Bucket="bench")
        rates = {}
        for contender in (with_pyarrow_and_obstore, with_the_sink):
            seconds, peak = measured(contender, (endpoint, "bench", rows))
            rates[contender] = rows / seconds
            print(f"{contender.__name__}: {rows / seconds:,.0f} records/s, peak {peak:,.0f} MiB")
        print(f"the sink: {rates[with_the_sink] / rates[with_pyarrow_and_obstore]:.0%} of the other way")
        print(
            *(f"{each['Key']}: {each['Size']:,} bytes" for each in client.list_objects_v2(Bucket="bench")["Contents"]),
            sep="\n",
        )
        client.close()


if __name__ == "__main__":
    main()
