"""Compares what was written with what is read back: every field, as exactly as the stream's type is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

Rows = Sequence[Mapping[str, Any]]
_SHOWN = 60


def difference(stream: str, schema: pa.Schema, wanted: Rows, found: Rows, *, repeats: bool = False) -> str:
    """How `found` differs from `wanted`, in a sentence; empty where it does not. Order never counts.

    With `repeats` each record may be there more than once.
    """
    mine, theirs = _counted(schema, wanted), _counted(schema, found)
    if repeats:
        theirs = Counter(theirs.keys())
    missing, surplus = mine - theirs, theirs - mine
    if not missing and not surplus:
        return ""
    return f"{stream}: {_altered(schema, missing, surplus) or _counts(missing, surplus, wanted, found)}"


def of_run(rows: Rows, cluster: str, run_id: str) -> Rows:
    """The rows of one run."""
    return [row for row in rows if (row.get("cluster"), row.get("run_id")) == (cluster, run_id)]


def _counted(schema: pa.Schema, rows: Rows) -> Counter[tuple[Any, ...]]:
    columns = [map(_plain(field.type), [row.get(field.name) for row in rows]) for field in schema]
    return Counter(zip(*columns, strict=True))


def _altered(schema: pa.Schema, missing: Iterable[tuple[Any, ...]], surplus: Iterable[tuple[Any, ...]]) -> str:
    """The first field of a record that came back with another value."""
    at = schema.get_field_index("record_id")
    there = {row[at]: row for row in surplus}
    for row in missing:
        other = there.get(row[at], row)
        for name, was, became in zip(schema.names, row, other, strict=True):
            if was != became:
                return f"{name} of record {row[at]} was written as {_shown(was)} and is read as {_shown(became)}"
    return ""


def _counts(missing: Counter[Any], surplus: Counter[Any], wanted: Rows, found: Rows) -> str:
    return (
        f"{len(wanted)} records should be there and {len(found)} are; "
        f"{missing.total()} are missing and {surplus.total()} are too many"
    )


def _plain(kind: pa.DataType) -> Callable[[Any], Any]:
    """Brings values of a type into the form in which two can be compared; what has another type stays different."""
    if pa.types.is_list(kind):
        item = _plain(kind.value_type)
        return _of_value(lambda value: tuple(map(item, value)) if isinstance(value, list) else ("no list", repr(value)))
    if pa.types.is_timestamp(kind):
        return _of_value(_moment)
    if pa.types.is_boolean(kind):
        return _of_value(lambda value: bool(value) if value in (0, 1) else ("no boolean", repr(value)))
    wanted = int if pa.types.is_integer(kind) else str
    return _of_value(lambda value: value if type(value) is wanted else (f"no {wanted.__name__}", repr(value)))


def _of_value(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(value: Any) -> Any:
        if value is None:
            return None
        return plain(value.tolist() if hasattr(value, "tolist") else value)  # numpy's scalars and arrays

    return of


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return ("no time", value)
    if not isinstance(value, datetime):
        return ("no time", repr(value))
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
