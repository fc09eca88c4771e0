"""Which rows stay in a table that shall show the present state of clusters, when a run comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.selection import Coverage

OBJECT = ("database_name", "schema_name", "table_name")
_REMEMBERED_OBJECTS = 100_000


class PresentState:
    """Which rows of a cluster stay in a table that shall show its present state, beside those that the run brings.

    A row stays where the run did not look, unless the run brings it nevertheless. Memory holds an id for each record
    that the run brings from where it did not look in full, once a row is asked for.
    """

    def __init__(self, coverage: Coverage | None, brought: Iterable[pa.RecordBatch]) -> None:
        self._by_table = coverage is None or any(len(each) > 1 for each in coverage.unread)
        self._covers = lru_cache(_REMEMBERED_OBJECTS)(coverage.covers) if coverage else None
        self._batches = brought

    def deciding(self, schema: pa.Schema) -> pa.Schema:
        """The columns of a table that tell whether one of its rows may stay."""
        names = OBJECT if self._by_table else OBJECT[:1]
        return pa.schema([schema.field(name) for name in names if name in schema.names])

    def may_keep(self, held: Iterable[pa.RecordBatch]) -> bool:
        """Whether one of the rows, of which the deciding columns suffice, is from where the run did not look.

        If none is, the run's records alone are the present state, and no other column needs to be read.
        """
        return any(self._is_outside(batch) for batch in held if batch.num_rows)

    def staying(self, held: pa.RecordBatch) -> pa.RecordBatch:
        """Those rows of the table that stay."""
        outside = held.filter(self._uncovered(held))
        return outside.filter(pa.array([each not in self._brought for each in _ids(outside)], pa.bool_()))

    @cached_property
    def _brought(self) -> set[bytes]:
        return {each for batch in self._batches for each in _ids(batch.filter(self._uncovered(batch)))}

    def _is_outside(self, batch: pa.RecordBatch) -> bool:
        if (covers := self._covers) is None:
            return True
        return not all(covers(*names) for names in _objects(batch)[0])

    def _uncovered(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        if (covers := self._covers) is None:
            return pa.repeat(True, batch.num_rows)
        objects, numbers = _objects(batch)
        return pa.array([not covers(*names) for names in objects], pa.bool_()).take(numbers)


def _objects(batch: pa.RecordBatch) -> tuple[list[tuple[str, ...]], pa.Array]:
    """The objects of which the rows tell, and for each row which of them it is: there are far fewer than rows."""
    columns = [batch.column(name).dictionary_encode() for name in OBJECT if name in batch.schema.names]
    number = pa.repeat(pa.scalar(0, pa.int64()), batch.num_rows)
    for column in columns:
        number = pc.add(pc.multiply(number, len(column.dictionary)), column.indices.cast(pa.int64()))
    distinct = number.dictionary_encode()
    rest, names = distinct.dictionary, []
    for column in reversed(columns):
        high = pc.divide(rest, len(column.dictionary))
        names.append(column.dictionary.take(pc.subtract(rest, pc.multiply(high, len(column.dictionary)))).to_pylist())
        rest = high
    return list(zip(*reversed(names), strict=True)), distinct.indices


def _ids(batch: pa.RecordBatch) -> Iterator[bytes]:
    return (bytes.fromhex(each) for each in batch.column("record_id").to_pylist())
