"""Any row that a stream can hold comes back as it was: from the batcher over the spool to a file and its reader."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.spool import Spool
from crdbexport.records import ENVELOPE, STREAMS, TIMESTAMP, Stream, record_id
from crdbexport.sinks.directory import StreamWriter
from crdbexport.sinks.jsonl import JsonLinesFile
from crdbexport.sinks.parquet import ParquetFile, ParquetSink
from tests.sinks.lake_support import INT64_MAX

TEXTS = st.text(max_size=8) | st.sampled_from(["", "NULL", "a\x00b", "\u2028\x85\r\n", "\U0010ffff", '"', "\\u0041"])
NUMBERS = st.integers(-INT64_MAX - 1, INT64_MAX) | st.sampled_from([INT64_MAX, -INT64_MAX - 1, 2**53 + 1, 0])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": NUMBERS,
    TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    "list<int64>": st.lists(NUMBERS, max_size=3),
    "list<string>": st.lists(TEXTS, max_size=3),
}


def rows_of(stream: Stream) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    fields = [VALUES[f.type] | st.none() if f.nullable else VALUES[f.type] for f in stream.own_fields]
    return st.lists(st.tuples(*fields), max_size=7)


@st.composite
def streams_and_rows(draw: st.DrawFn) -> tuple[Stream, list[tuple[Any, ...]]]:
    stream = STREAMS[draw(st.sampled_from(list(STREAMS)))]
    return stream, draw(rows_of(stream))


def spooled(
    stream: Stream, rows: list[tuple[Any, ...]], envelope: Envelope, directory: Path
) -> Iterator[pa.RecordBatch]:
    """The rows as a later process finds them in the spool."""
    batcher, spool = Batcher(envelope, batch_rows=3), Spool(directory)
    for name, data in (*batcher.add(stream.name, rows), *batcher.finish()):
        spool.append(name, data)
    return (batch.data for batch in Spool(directory, spool.batches).read())


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
        return rows
    return [with_times(json.loads(line)) for line in path.read_bytes().split(b"\n")[:-1]]


def with_times(row: dict[str, Any]) -> dict[str, Any]:
    times = [f.name for stream in STREAMS.values() for f in stream.fields if f.type == TIMESTAMP and row.get(f.name)]
    return {**row, **{name: datetime.fromisoformat(row[name]) for name in times}}


WRITERS: dict[str, Callable[[Path, pa.Schema], StreamWriter]] = {
    "parquet": lambda path, schema: ParquetFile(path, schema, ParquetSink.Config(path=path)),
    "jsonl": lambda path, schema: JsonLinesFile(path, "none"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
@given(streams_and_rows(), TEXTS, TEXTS, VALUES[TIMESTAMP], VALUES[TIMESTAMP])
@settings(max_examples=40, deadline=None)
def test_any_record_comes_back_as_it_was(
    kind: str,
    told: tuple[Stream, list[tuple[Any, ...]]],
    cluster: str,
    run_id: str,
    day: datetime,
    extracted_at: datetime,
) -> None:
    stream, rows = told
    names = [f.name for f in (*ENVELOPE, *stream.own_fields)]
    ids = [record_id(cluster, stream.name, row[: len(stream.key)]) for row in rows]
    envelopes = ((cluster, run_id, day, extracted_at, each) for each in ids)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"file.{kind}"
        writer = WRITERS[kind](path, stream.schema)
        for data in spooled(stream, rows, Envelope(cluster, run_id, day, extracted_at), Path(place) / "spool"):
            writer.write(data)
        writer.close()
        expected = [
            dict(zip(names, (*envelope, *row), strict=True)) for envelope, row in zip(envelopes, rows, strict=True)
        ]
        assert read_back(path) == expected
