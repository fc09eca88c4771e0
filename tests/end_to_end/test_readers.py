"""What is published reads with the same values in DuckDB, Polars, PyArrow and pandas, without options that guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from crdbexport.records import STREAMS

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]


def from_arrow(table: pa.Table, stream: str) -> Rows:
    """The rows of an engine's answer; the cast fails where the engine took a column for something else."""
    schema = STREAMS[stream].schema
    rows: Rows = table.select(schema.names).cast(schema).to_pylist()
    return sorted(rows, key=lambda each: each["record_id"])


def parquet_in_duckdb(lake: Path, stream: str) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        question = "select * from read_parquet(?, hive_partitioning = true)"
        return from_arrow(connection.sql(question, params=[f"{lake}/{stream}/**/*.parquet"]).to_arrow_table(), stream)


def parquet_in_polars(lake: Path, stream: str) -> Rows:
    return from_arrow(pl.read_parquet(f"{lake}/{stream}/**/*.parquet", hive_partitioning=True).to_arrow(), stream)


def parquet_in_pyarrow(lake: Path, stream: str) -> Rows:
    return from_arrow(ds.dataset(lake / stream, format="parquet", partitioning="hive").to_table(), stream)


def parquet_in_pandas(lake: Path, stream: str) -> Rows:
    frame = pd.read_parquet(lake / stream, dtype_backend="pyarrow")
    return from_arrow(pa.Table.from_pandas(frame, preserve_index=False), stream)


PARQUET_READERS = (parquet_in_duckdb, parquet_in_polars, parquet_in_pyarrow, parquet_in_pandas)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("read", PARQUET_READERS)
def test_every_engine_reads_the_parquet_tree_with_equal_values(
    exported: Any, read: Callable[[Path, str], Rows], stream: str
) -> None:
    expected = sorted(exported.expected[stream], key=lambda each: each["record_id"])
    assert expected
    assert read(exported.lake, stream) == expected


def test_one_glob_reads_the_tables_of_the_lake(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.lake.parent)
    question = "select count(*), max(size_bytes), list(distinct date) from read_parquet('lake/tables/**/*.parquet')"
    with duckdb.connect() as connection:
        [(count, largest, days)] = connection.execute(question).fetchall()
    assert (count, largest) == (len(exported.expected["tables"]), 2**63 - 1)
    assert [str(day) for day in days] == ["2026-03-05"]


def plain(value: Any) -> Any:
    """A value as JSON told it, whatever the reader took it for."""
    if isinstance(value, datetime):
        return f"{value.replace(tzinfo=value.tzinfo or UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return list(value) if isinstance(value, (list, tuple)) else value


def from_json(rows: Rows) -> Rows:
    told = [{name: plain(value) for name, value in row.items()} for row in rows]
    return sorted(told, key=lambda each: each["record_id"])


def json_lines_in_duckdb(path: Path) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        question = "select * exclude (date) from read_json(?, hive_partitioning = true)"
        return from_json(connection.sql(question, params=[str(path)]).to_arrow_table().to_pylist())


def json_lines_in_polars(path: Path) -> Rows:
    return from_json(pl.read_ndjson(path, infer_schema_length=None).to_dicts())


def json_lines_in_pandas(path: Path) -> Rows:
    frame = pd.read_json(path, lines=True, engine="pyarrow", dtype_backend="pyarrow")
    return from_json(pa.Table.from_pandas(frame, preserve_index=False).to_pylist())


JSON_LINES_READERS = (json_lines_in_duckdb, json_lines_in_polars, json_lines_in_pandas)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("read", JSON_LINES_READERS)
def test_every_engine_reads_the_json_lines_with_equal_values(
    exported: Any, read: Callable[[Path], Rows], stream: str
) -> None:
    [path] = (exported.lines / stream).rglob("*.jsonl")
    expected = sorted((json.loads(line) for line in path.read_bytes().splitlines()), key=lambda each: each["record_id"])
    assert expected
    assert read(path) == expected
