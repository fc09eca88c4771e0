"""Records of every stream for tests of sinks: no field is null, and every number, name and time is plain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from crdbexport.pipeline.batches import with_record_ids
from crdbexport.records import ENVELOPE, STREAMS, Stream
from crdbexport.sinks.base import Run

DAY = datetime(2026, 1, 31, tzinfo=UTC)
SINK_NAME = "conformance"
_READ_AFTER = timedelta(hours=12)
_NAMES = {"database_name": "bank", "schema_name": "public", "table_name": "accounts", "details": "fetched"}


def sample_run(
    run_id: str = "r1",
    *,
    cluster: str = "c1",
    logical_time: datetime = DAY,
    extracted_at: datetime | None = None,
    streams: Iterable[str] = STREAMS,
    added: Mapping[str, pa.Field] | None = None,
) -> Run:
    """A run as a sink sees it; `added` gives streams one more nullable field."""
    schemas = {name: STREAMS[name].schema for name in streams}
    for stream, field in (added or {}).items():
        schemas[stream] = schemas[stream].append(field)
    return Run(cluster, run_id, logical_time, extracted_at or logical_time + _READ_AFTER, SINK_NAME, schemas)


def later_of(run: Run) -> Run:
    """Another run of the same snapshot, read later."""
    return replace(run, run_id="r2", extracted_at=run.extracted_at + timedelta(hours=1))


def records(stream: str, count: int = 1, *, run: Run | None = None, first: int = 0, **values: Any) -> pa.RecordBatch:
    """`count` records of a stream, numbered from `first`, in the envelope of `run`; `values` are the same in all.

    The record ids are computed from the keys as they stand. Records of equal number have equal ids within a cluster.
    """
    run = run or sample_run()
    declared, schema = STREAMS[stream], run.streams[stream]
    numbers = range(first, first + count)
    same = {each.name: getattr(run, each.name, "") for each in ENVELOPE} | values
    columns = [
        pa.array([same[field.name]] * count if field.name in same else _own(declared, field, numbers), field.type)
        for field in schema
    ]
    return with_record_ids(declared, run.cluster, pa.RecordBatch.from_arrays(columns, schema=schema))


def some_of_everything(run: Run) -> list[tuple[str, pa.RecordBatch]]:
    """Two batches of every stream of the run: three records, and two more."""
    parts = ((0, 3), (3, 2))
    return [(name, records(name, count, run=run, first=first)) for first, count in parts for name in run.streams]


def _own(stream: Stream, field: pa.Field, numbers: Iterable[int]) -> list[Any]:
    """A field after the envelope. What tells records apart is the last part of the key that is free text."""
    name: str = field.name
    if name == [each for each in stream.key if each != "privilege_type"][-1]:
        return [f"{name.removesuffix('_name')}_{number}" for number in numbers]
    if name in _NAMES:
        return [_NAMES[name] for _ in numbers]
    of_number = _values(name)[field.type]
    return [of_number(number) for number in numbers]


def _values(name: str) -> dict[pa.DataType, Callable[[int], Any]]:
    return {
        pa.string(): lambda number: f"{name} {number}",
        pa.bool_(): lambda number: number % 2 == 0,
        pa.int32(): lambda number: number + 1,
        pa.int64(): lambda number: 1000 + number,
        pa.timestamp("us", "UTC"): lambda number: DAY + timedelta(seconds=number),
        pa.list_(pa.int64()): lambda number: [1, number],
        pa.list_(pa.string()): lambda number: ["id", f"column_{number}"],
    }
