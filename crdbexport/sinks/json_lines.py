"""Records as JSON objects, one a line: fields in schema order, nulls written, integers exact."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_encoder = msgspec.json.Encoder()


def json_rows(data: pa.RecordBatch, *, stream: str | None = None) -> list[bytes]:
    """Each row as a JSON object in UTF-8, without a line end; with `stream`, that field comes first.

    Times are RFC 3339 in UTC with six fractional digits. No object holds a character that any reader takes
    for the end of a line.
    """
    names = list(data.schema.names)
    columns: list[Any] = [_values(column) for column in data.columns]
    if stream is not None:
        names.insert(0, "stream")
        columns.insert(0, repeat(stream, data.num_rows))
    encode = _encoder.encode
    return [_on_one_line(encode(dict(zip(names, row, strict=True)))) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # All times are UTC; said so, Arrow would look for a time zone database, which small machines lack.
        column = pc.strftime(
            column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ"
        )
    values: list[Any] = column.to_pylist()
    return values


def _on_one_line(line: bytes) -> bytes:
    # JSON escapes all other line ends itself. In UTF-8 these bytes stand for nothing else.
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        line = line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        line = line.replace(b"\xc2\x85", b"\\u0085")
    return line
