"""What sinks share that commit a stream to a table of its own, such as those of Delta Lake and Iceberg."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from crdbexport.disk import cause_of
from crdbexport.errors import ConfigError, SinkRefusedError, shown
from crdbexport.selection import Coverage
from crdbexport.sinks.base import Outcome, Run
from crdbexport.sinks.staging import Staging

OBJECT = ("database_name", "schema_name", "table_name")
_REMEMBERED_OBJECTS = 100_000
_SECRET_WORDS = ("key", "secret", "token", "password", "credential", "sas", "connection_string", "service_account")
_ATTEMPTS = 12
_EPOCH = datetime.fromtimestamp(0, UTC)
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 5.0


@dataclass(frozen=True)
class Delivery:
    """A run whose records are staged. With `replaces` they are the present state where the run looked."""

    run: Run
    outcome: Outcome
    staging: Staging
    replaces: bool

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """The stream's records, from the first; no batch is empty."""
        with self.staging.read(stream) as reader:
            yield from (batch for batch in reader if batch.num_rows)

    def present_state(self, stream: str) -> PresentState:
        """Which rows of the run's cluster stay in the stream's table."""
        return PresentState(self.outcome.coverage.get(stream), self.batches(stream))


def waits() -> Iterator[float]:
    """How long to wait after each attempt that met the commit of another, as often as it is made again."""
    for attempt in range(_ATTEMPTS):
        # Two that met once shall not meet again.
        yield random.uniform(0.5, 1) * min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)  # noqa: S311


def refuse_unwritable(directory: Path, option: str) -> None:
    """Refuse a directory, which need not be there yet, in which no file can be made; nothing stays of the attempt."""
    nearest = next(each for each in (directory, *directory.parents) if each.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{option} {directory} cannot be made: {nearest} is not a directory; name another place")
    try:
        # Permissions do not tell everything: /proc takes no files from anybody.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {directory} cannot be written: {nearest}: {cause_of(error)}; name another place"
        ) from error


def is_secret_setting(name: str) -> bool:
    """Whether a setting of a store or catalog, by its name, holds what must not be shown."""
    return any(word in name.lower().replace("-", "_") for word in _SECRET_WORDS)


def commit_id(run: Run) -> str:
    """What a commit of the run is known by in its tables: the same in every attempt, and of no other run."""
    return "crdbexport-" + sha256(f"{run.cluster}\0{run.run_id}".encode()).hexdigest()[:32]


def refuse_undoing(run: Run, stream: str) -> SinkRefusedError:
    """The error for a run that was read before one whose records the table holds."""
    return SinkRefusedError(
        f"table {shown(stream)} holds records of this cluster from a later run, which run {shown(run.run_id)} would "
        "undo; start a new run instead"
    )


def refuse_other_reading(run: Run, stream: str) -> SinkRefusedError:
    """The error for a run that the table holds as it was read at another time, before its state was lost."""
    return SinkRefusedError(
        f"table {shown(stream)} holds run {shown(run.run_id)} already, as it was read at another time; give another "
        "--run-id"
    )


def read_at(run: Run) -> int:
    """When the run was read, in microseconds: the same in every attempt, unless the cluster is read anew."""
    return (run.extracted_at - _EPOCH) // timedelta(microseconds=1)


def fields_to_add(stream: str, declared: pa.Schema, held: pa.Schema) -> list[pa.Field]:
    """The nullable fields of the stream that its table, with the schema `held`, must gain to take it.

    Raises SinkRefusedError for a table that cannot take it.
    """
    for column in held:
        at = declared.get_field_index(column.name)
        if at >= 0 and plain_type(column.type) != plain_type(declared.field(at).type):
            what = f"has the type {plain_type(column.type)} and not {plain_type(declared.field(at).type)}"
            raise _misfit(stream, column.name, what)
        if not column.nullable and (at < 0 or declared.field(at).nullable):
            raise _misfit(stream, column.name, "takes no nulls, and the stream has some")
    lacking = [field for field in declared if field.name not in held.names]
    for field in lacking:
        if not field.nullable:
            raise _misfit(stream, field.name, "is missing")
    return lacking


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type as crdbexport declares it, for types that differ in layout only."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz in ("UTC", "+00:00", "Etc/UTC"):
        return pa.timestamp(kind.unit, "UTC")
    return kind


def shaped(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of `schema`, null where it has none."""
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class PresentState:
    """Which rows of a cluster stay in a table that shall show its present state, beside those that the run brings.

    A row stays where the run did not look, unless the run brings it nevertheless. Memory holds an id for each record
    that the run brings from where it did not look in full.
    """

    def __init__(self, coverage: Coverage | None, brought: Iterable[pa.RecordBatch]) -> None:
        self._covers = lru_cache(_REMEMBERED_OBJECTS)(coverage.covers) if coverage else None
        self._brought = {each for batch in brought for each in self._outside(batch)}

    def staying(self, held: pa.RecordBatch) -> pa.RecordBatch:
        """Those rows of the table that stay."""
        stay = [
            uncovered and each not in self._brought
            for uncovered, each in zip(self._uncovered(held), _ids(held), strict=True)
        ]
        return held.filter(pa.array(stay, pa.bool_()))

    def _outside(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        return (each for uncovered, each in zip(self._uncovered(batch), _ids(batch), strict=True) if uncovered)

    def _uncovered(self, batch: pa.RecordBatch) -> Iterator[bool]:
        if (covers := self._covers) is None:
            return (True for _ in range(batch.num_rows))
        names = [batch.column(name).to_pylist() for name in OBJECT if name in batch.schema.names]
        return (not covers(*each) for each in zip(*names, strict=True))


def _ids(batch: pa.RecordBatch) -> Iterator[bytes]:
    return (bytes.fromhex(each) for each in batch.column("record_id").to_pylist())


def _misfit(stream: str, column: str, what: str) -> SinkRefusedError:
    return SinkRefusedError(
        f"table {shown(stream)}: column {shown(column)} {what}; rename the table, and the next run makes a new one"
    )
