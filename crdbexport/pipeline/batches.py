"""Rows become record batches: typed by the declared schema, in the envelope of the run, cut at a fixed size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from crdbexport.records import ENVELOPE, RECORD_ID_INDEX, STREAMS, Stream, record_ids

# Batches are cut by rows alone, so that they are the same whatever the concurrency.
BATCH_ROWS = 2_000


@dataclass(frozen=True)
class Envelope:
    """What every record of a run has in common."""

    cluster: str
    run_id: str
    logical_time: datetime
    extracted_at: datetime

    def columns(self, rows: int) -> list[pa.Array]:
        """The envelope's columns but the last, which is the record's own id."""
        values = (self.cluster, self.run_id, self.logical_time, self.extracted_at)
        types = [STREAMS["databases"].schema.field(each.name).type for each in ENVELOPE]
        return [pa.repeat(pa.scalar(value, type=kind), rows) for value, kind in zip(values, types, strict=False)]


@dataclass
class Batcher:
    """Gathers rows by stream and gives out record batches of `batch_rows`; the last ones may be smaller."""

    envelope: Envelope
    batch_rows: int = BATCH_ROWS
    _held: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, stream: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The batches that became full."""
        held = self._held.setdefault(stream, [])
        held.extend(rows)
        while len(held) >= self.batch_rows:
            yield stream, self._built(STREAMS[stream], held[: self.batch_rows])
            del held[: self.batch_rows]

    def finish(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """What is left, in the order in which the streams are declared."""
        for stream in STREAMS.values():
            if rows := self._held.pop(stream.name, []):
                yield stream.name, self._built(stream, rows)

    def _built(self, stream: Stream, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        schema = stream.schema
        own_types = schema.types[len(ENVELOPE) :]
        columns = list(zip(*rows, strict=True))
        own = [pa.array(column, type=kind) for column, kind in zip(columns, own_types, strict=True)]
        keys = zip(*columns[: len(stream.key)], strict=True)
        ids = record_ids(self.envelope.cluster, stream.name, keys)
        return pa.RecordBatch.from_arrays([*self.envelope.columns(len(rows)), pa.array(ids), *own], schema=schema)


def with_record_ids(stream: Stream, cluster: str, data: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with every record id computed from the key as it stands."""
    keys = zip(*(data.column(name).to_pylist() for name in stream.key), strict=True)
    ids = pa.array(record_ids(cluster, stream.name, keys), type=pa.string())
    return data.set_column(RECORD_ID_INDEX, data.schema.field(RECORD_ID_INDEX), ids)
