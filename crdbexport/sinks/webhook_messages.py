"""The messages of a run, each with an id that depends on its place in the run and on what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from crdbexport.sinks.base import Batch, Run
from crdbexport.sinks.json_lines import json_rows

RECORDS, COMPLETED, ABORTED = "records.batch", "run.completed", "run.aborted"
MANY = 99_999_999


class Message(NamedTuple):
    """One POST: its id, its body, and the ids of the records in it."""

    id: str
    body: bytes
    record_ids: Sequence[str] = ()


def messages_of(batch: Batch, run: Run, max_records: int, max_bytes: int) -> Iterator[Message]:
    """The batch in messages of bounded size; a record that is too large for any has one of its own."""
    rows = json_rows(batch.data)
    ids: list[str] = batch.data.column("record_id").to_pylist()
    room = max_bytes - len(event(RECORDS, run, _data(batch, MANY, [])).body)
    for number, chunk in enumerate(_chunks(rows, max_records, room)):
        key = (batch.stream, batch.sequence, number, _digest(rows[chunk], run))
        yield event(RECORDS, run, _data(batch, number, rows[chunk]), key=key, record_ids=ids[chunk])


def event(
    kind: str,
    run: Run,
    data: Mapping[str, Any],
    *,
    key: Sequence[str | int] = (),
    record_ids: Sequence[str] = (),
) -> Message:
    """A message about the run; nothing in it depends on when or how often it is sent."""
    about = {
        "cluster": run.cluster,
        "run_id": run.run_id,
        "logical_time": _rfc3339(run.logical_time),
        "extracted_at": _rfc3339(run.extracted_at),
        "sink": run.sink_name,
    }
    body = msgspec.json.encode({"type": kind, "timestamp": _rfc3339(run.extracted_at), "data": {**about, **data}})
    identity = msgspec.json.encode([run.cluster, run.run_id, run.sink_name, kind, *key])
    return Message(f"crdbexport_{blake2b(identity, digest_size=16).hexdigest()}", body, record_ids)


def _data(batch: Batch, number: int, rows: Sequence[bytes]) -> dict[str, Any]:
    return {
        "stream": batch.stream,
        "sequence": batch.sequence,
        "chunk": number,
        "records": [msgspec.Raw(row) for row in rows],
    }


def _chunks(rows: Sequence[bytes], max_records: int, max_bytes: int) -> Iterator[slice]:
    """Runs of rows that fit one message; a row that is too large for any goes alone."""
    start = size = 0
    for index, row in enumerate(rows):
        if index > start and (index - start >= max_records or size + len(row) + 1 > max_bytes):
            yield slice(start, index)
            start, size = index, 0
        size += len(row) + 1
    if rows:
        yield slice(start, len(rows))


def _digest(rows: Sequence[bytes], run: Run) -> str:
    """What the records say, apart from when they were read: reading the same again makes no other message."""
    read_at = b'"extracted_at":"%s"' % _rfc3339(run.extracted_at).encode()
    digest = blake2b(digest_size=16)
    for row in rows:
        digest.update(row.replace(read_at, b"", 1) + b"\n")
    return digest.hexdigest()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
