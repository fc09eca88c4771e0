"""Records as JSON objects, one a line: fields in schema order, nulls written, integers exact."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_encoder = msgspec.json.Encoder()
TEXT = pa.large_string()  # A batch of long texts may hold more than 2 GiB.


def json_rows(data: pa.RecordBatch, *, stream: str | None = None) -> list[bytes]:
    """Each row as a JSON object in UTF-8, without a line end; with `stream`, that field comes first.

    Times are RFC 3339 in UTC with six fractional digits. No object holds a character that any reader takes
    for the end of a line.
    """
    return [line[:-1] for line in _lines(data, stream).cast(pa.large_binary()).to_pylist()]


def json_lines(data: pa.RecordBatch, *, stream: str | None = None) -> pa.Buffer:
    """The same rows one after the other, each with a line end."""
    lines = _lines(data, stream)
    # They lie in memory as they are to be written; what is left of the buffer is not theirs.
    return lines.buffers()[2].slice(0, pc.sum(pc.binary_length(lines)).as_py() or 0)


def _lines(data: pa.RecordBatch, stream: str | None) -> pa.LargeStringArray:
    """Column by column: a Python object is made only for each distinct value."""
    begin = "{" if stream is None else f'{{"stream":{_json(stream)},'
    parts: list[Any] = []
    for name, column in zip(data.schema.names, data.columns, strict=True):
        parts += [f"{',' if parts else begin}{_json(name)}:", _texts(column)]
    separator = ""
    return pc.binary_join_element_wise(*map(_scalar, (*parts, "}\n", separator)))


def _scalar(part: Any) -> Any:
    return pa.scalar(part, TEXT) if isinstance(part, str) else part


def _texts(column: pa.Array) -> pa.LargeStringArray:
    """Each value as JSON."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return pc.fill_null(column.cast(TEXT), "null")
    if pa.types.is_nested(column.type):
        return pa.array([_json(value) for value in column.to_pylist()], TEXT)
    # Few values are distinct: names of clusters, databases, tables, users, types.
    distinct = column.dictionary_encode()
    texts = pa.array([_json(value) for value in _values(distinct.dictionary)], TEXT)
    return pc.fill_null(texts.take(distinct.indices), "null")


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # All times are UTC; said so, Arrow would look for a time zone database, which small machines lack.
        column = pc.strftime(
            column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%SZ"
        )
    values: list[Any] = column.to_pylist()
    return values


def _json(value: Any) -> str:
    text = _encoder.encode(value).decode()
    # JSON escapes all other line ends itself.
    if not text.isascii():
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    return text
