from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import duckdb
import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdbexport.records import STREAMS
from crdbexport.sinks.base import Batch
from crdbexport.sinks.parquet import ParquetSink
from tests.sinks.lake_support import a_run, all_files, an_outcome, deliver, parquet, records

GROUP = 1_000


def publish(lake: Path, stream: str, batches: list[pa.RecordBatch], **options: int) -> Path:
    receipt = deliver(parquet(lake, **options), a_run(streams=[stream]), [(stream, data) for data in batches])
    return Path(receipt.artifacts[0].location)


def with_duckdb(directory: Path, schema: pa.Schema) -> pa.Table:
    names = ", ".join(f'"{name}"' for name in schema.names)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.sql(f"SELECT {names} FROM '{directory}/**/*.parquet'").to_arrow_table()


def with_polars(directory: Path, schema: pa.Schema) -> pa.Table:
    return pl.read_parquet(directory).select(schema.names).to_arrow()


def with_dataset(directory: Path, schema: pa.Schema) -> pa.Table:
    return ds.dataset(directory, format="parquet", partitioning="hive").to_table(schema.names)


def with_pandas(directory: Path, schema: pa.Schema) -> pa.Table:
    frame = pd.read_parquet(directory, dtype_backend="pyarrow")
    return pa.Table.from_pandas(frame[schema.names], preserve_index=False)


@pytest.mark.parametrize("read", [with_duckdb, with_polars, with_dataset, with_pandas])
@pytest.mark.parametrize("stream", STREAMS)
def test_every_reader_reads_the_same_values(
    tmp_path: Path, stream: str, read: Callable[[Path, pa.Schema], pa.Table]
) -> None:
    batch = records(stream, 40)
    publish(tmp_path, stream, [batch])
    by_id = sorted(batch.to_pylist(), key=lambda row: row["record_id"])
    table = read(tmp_path / stream, batch.schema).cast(batch.schema)
    assert sorted(table.to_pylist(), key=lambda row: row["record_id"]) == by_id


def test_readers_see_the_day_as_their_partition(tmp_path: Path) -> None:
    publish(tmp_path, "tables", [records("tables", 2)])
    [(day,)] = duckdb.sql(f"SELECT DISTINCT date::VARCHAR FROM '{tmp_path}/tables/**/*.parquet'").fetchall()
    assert day == "2026-11-23"
    assert ds.dataset(tmp_path / "tables", format="parquet", partitioning="hive").to_table()["date"][0].as_py() == day


@pytest.mark.parametrize("stream", STREAMS)
def test_a_file_without_rows_has_the_whole_schema(tmp_path: Path, stream: str) -> None:
    path = publish(tmp_path, stream, [])
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(STREAMS[stream].schema)
    assert table.num_rows == 0


@pytest.mark.slow
def test_row_groups_are_full_but_for_the_last(tmp_path: Path) -> None:
    sizes = [1, 999, 2_500, 0, 7, 3_000, 123]
    path = publish(tmp_path, "columns", [records("columns", size) for size in sizes], row_group_rows=GROUP)
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert groups == [GROUP] * 6 + [sum(sizes) % GROUP]


@pytest.mark.slow
def test_full_row_groups_are_on_disk_before_commit(tmp_path: Path) -> None:
    sink = parquet(tmp_path, row_group_rows=GROUP)
    sink.open(run=a_run(streams=["columns"]))
    staged = tmp_path / "_staging/prod.one/columns"
    sizes = []
    for sequence in range(3):
        sink.write(batch=Batch("columns", sequence, records("columns", GROUP)))
        sizes.append(staged.stat().st_size)
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    sink.abort()


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 2_600), max_size=8))
def test_equal_records_give_equal_bytes_however_they_are_batched(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    whole = records("tables", 2_600)
    edges = [0, *sorted(cuts), whole.num_rows]
    batches = [whole.slice(start, end - start) for start, end in pairwise(edges)]
    lakes = [tmp_path_factory.mktemp("lake") for _ in range(2)]
    publish(lakes[0], "tables", [whole], row_group_rows=GROUP)
    publish(lakes[1], "tables", batches, row_group_rows=GROUP)
    assert all_files(lakes[0]) == all_files(lakes[1])


@pytest.mark.slow
def test_pages_do_not_follow_batches(tmp_path: Path) -> None:
    whole = records("database_grants", 45_000)  # Several pages a column.
    batches = [whole.slice(start, 777) for start in range(0, whole.num_rows, 777)]
    publish(tmp_path / "a", "database_grants", [whole])
    publish(tmp_path / "b", "database_grants", batches)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")


@pytest.mark.slow
def test_records_keep_their_order_over_batches(tmp_path: Path) -> None:
    batches = [records("tables", 700, first=first) for first in range(0, 4_200, 700)]
    path = publish(tmp_path, "tables", batches, row_group_rows=GROUP)
    assert pq.ParquetFile(path).read().equals(pa.Table.from_batches(batches).combine_chunks())


def test_a_flipped_bit_is_found_by_its_page_checksum(tmp_path: Path) -> None:
    path = publish(tmp_path, "tables", [records("tables", 300)])
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start + column.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_files_are_zstd_in_a_format_that_old_readers_know(tmp_path: Path) -> None:
    metadata = pq.read_metadata(publish(tmp_path, "tables", [records("tables", 10)]))
    columns = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert metadata.format_version == "2.6"


@pytest.mark.slow
def test_the_effort_of_compression_is_an_option(tmp_path: Path) -> None:
    batches = [records("columns", 5_000)]
    sizes = [
        publish(tmp_path / str(level), "columns", batches, compression_level=level).stat().st_size for level in (1, 19)
    ]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("option", [{"row_group_rows": 10}, {"row_group_rows": 10**7}, {"compression_level": 30}])
def test_options_out_of_bounds_are_refused(option: dict[str, int]) -> None:
    decode = {"type": ParquetSink.Config, "dec_hook": lambda wanted, value: wanted(value)}
    assert msgspec.convert({"path": "lake"}, **decode) == ParquetSink.Config(path=Path("lake"))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"path": "lake", **option}, **decode)


def test_a_batch_of_another_schema_fails_the_sink_and_leaves_nothing(tmp_path: Path) -> None:
    sink = parquet(tmp_path)
    sink.open(run=a_run(streams=["tables"]))
    sink.write(batch=Batch("tables", 0, records("columns", 5)))
    with pytest.raises(pa.ArrowInvalid):
        sink.commit(outcome=an_outcome())
    sink.abort()
    assert [path.name for path in tmp_path.rglob("*")] == ["_staging", "_commit.lock"]
