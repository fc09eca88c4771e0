"""Records as JSON objects, one a line: fields in schema order, nulls written, integers exact."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_encoder = msgspec.json.Encoder()
# What JSON's quotes hold without an escape, and what no reader takes for a line's end.
PLAIN = bytes(each for each in range(0x20, 0x7F) if each not in b'"\\')
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
    """Column by column: a Python object is made only for values that are no plain text, and once for equal ones."""
    parts: list[Any] = []
    text = "{" if stream is None else f'{{"stream":{_json(stream)},'
    for name, column in zip(data.schema.names, data.columns, strict=True):
        text += f"{_json(name)}:"
        if _is_constant(column):
            text += f"{_texts(column[:1])[0]},"
        elif _is_plain(column):
            parts += [text + '"', column.cast(TEXT)]
            text = '",'
        else:
            parts += [text, _texts(column)]
            text = ","
    separator = ""
    ends = pa.repeat(pa.scalar(text.removesuffix(",") + "}\n", TEXT), data.num_rows)
    return pc.binary_join_element_wise(*map(_scalar, (*parts, ends, separator)))


def _scalar(part: Any) -> Any:
    return pa.scalar(part, TEXT) if isinstance(part, str) else part


def _is_constant(column: pa.Array) -> bool:
    """Whether all values are equal, as those of a run's cluster or time are."""
    if not len(column) or pa.types.is_nested(column.type):
        return False
    if column.null_count:
        return bool(column.null_count == len(column))
    # Each like the one before it; where the ends differ there is nothing to look for.
    return column[0] == column[-1] and bool(column[1:].equals(column[:-1]))


def _is_plain(column: pa.Array) -> bool:
    """Whether all values are texts that stand between quotes as they are."""
    if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    values = column.buffers()[2]
    return values is None or not values.to_pybytes().translate(None, PLAIN)


def _texts(column: pa.Array) -> pa.LargeStringArray:
    """Each value as JSON."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return _with_nulls(column.cast(TEXT))
    if pa.types.is_nested(column.type):
        return pa.array([_json(value) for value in column.to_pylist()], TEXT)
    # Few values are distinct: names of databases, tables, users, types.
    distinct = column.dictionary_encode()
    texts = pa.array([_json(value) for value in _values(distinct.dictionary)], TEXT)
    return _with_nulls(texts.take(distinct.indices))


def _with_nulls(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    return pc.fill_null(texts, "null") if texts.null_count else texts


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
