"""The Iceberg table of one stream: what it must be, and bringing a run into it in one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING

import pyarrow as pa

from crdbexport import Artifact, Run, SinkError
from crdbexport.sinks.present_state import PresentState
from crdbexport.sinks.table_schemas import fields_to_add, shaped
from crdbexport.sinks.tables import (
    Delivery,
    commit_id,
    read_at,
    refuse_other_reading,
    refuse_undoing,
    waits,
)

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table, Transaction

COMMIT_ID, READ_AT = "crdbexport.commit-id", "crdbexport.read-at"
RETRIES = "commit.retry.num-retries"
NEW_TABLE = {
    # Bounds of texts are cut to 16 characters; whole ones tell which files hold one cluster, or one run, alone.
    "write.metadata.metrics.column.cluster": "full",
    "write.metadata.metrics.column.run_id": "full",
}
FILE_BYTES = 64 * 2**20
"""How much of a stream is in memory at once, and then in a file of its own; compressed, it is a fraction."""


@dataclass(frozen=True)
class StreamTable:
    """The table of one stream in a namespace of a catalog."""

    catalog: Catalog
    namespace: str
    stream: str
    schema: pa.Schema

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.stream}"

    def check(self) -> None:
        """Refuse a table that cannot take the stream; none at all can."""
        if table := self._loaded():
            self._lacking(table)

    def publish(self, delivery: Delivery) -> Artifact:
        """Bring the records into the table in one commit, unless the run has one there; answers what is there."""
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        rows = delivery.staging.rows(self.stream)
        for wait in waits():
            try:
                size = self._tried(self._loaded() or self._made(), delivery)
                return Artifact(self.name, self.stream, rows, size)
            except (CommitFailedException, ValidationException) as conflict:
                cause = str(conflict)
                time.sleep(wait)
        raise SinkError(
            f"table {self.name}: others commit to it all the time ({cause}); "
            "run the same command again when they are done"
        )

    def _tried(self, table: Table, delivery: Delivery) -> int | None:
        """One attempt; answers the bytes that it added, if it added any."""
        lacking = self._lacking(table)
        if self._is_there(table, delivery):
            return None
        if delivery.replaces:
            self._refuse_undoing(table, delivery.run)
        # pyiceberg would repeat an append after whoever was first, without another look at whether the run is there.
        table.metadata.properties[RETRIES] = "0"
        with table.transaction() as transaction:
            if lacking:
                with transaction.update_schema() as update:
                    update.union_by_name(pa.schema(lacking))
            self._write(table, transaction, delivery)
        snapshot = table.current_snapshot()
        return int(snapshot.summary["added-files-size"] or 0) if snapshot and snapshot.summary else None

    def _write(self, table: Table, transaction: Transaction, delivery: Delivery) -> None:
        mark = {COMMIT_ID: commit_id(delivery.run), READ_AT: str(read_at(delivery.run))}
        batches, schema = delivery.batches(self.stream), self.schema
        if delivery.replaces:
            of_cluster = _where(cluster=delivery.run.cluster)
            state = delivery.present_state(self.stream)
            if self._may_keep(table, state, of_cluster):
                schema = pa.schema([*schema, *(each for each in _arrow_schema(table) if each.name not in schema.names)])
                batches = chain(batches, self._staying(table, state, of_cluster, schema))
            if any(True for _ in table.scan(of_cluster).plan_files()):  # It warns where there is nothing to delete.
                transaction.delete(of_cluster, snapshot_properties=mark)
        _append(table, transaction, (shaped(each, schema) for each in batches), schema, mark)

    def _may_keep(self, table: Table, state: PresentState, of_cluster: BooleanExpression) -> bool:
        deciding = state.deciding(self.schema)
        return state.may_keep(shaped(each, deciding) for each in _read(table, of_cluster, *deciding.names))

    def _staying(
        self, table: Table, state: PresentState, of_cluster: BooleanExpression, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The rows of the cluster that the run did not look for."""
        for held in _read(table, of_cluster):
            if (staying := state.staying(shaped(held, schema))).num_rows:
                yield staying

    def _is_there(self, table: Table, delivery: Delivery) -> bool:
        """Whether the run has its commit: among the snapshots, or, as these expire, among what runs have added.

        One that was read anew under its id may only replace the state that it left.
        """
        run = delivery.run
        summaries = (each.summary for each in table.snapshots() if each.summary)
        marks = [each for each in summaries if each[COMMIT_ID] == commit_id(run)]
        if marks and marks[-1][READ_AT] == str(read_at(run)):
            return True
        if delivery.replaces:
            return False  # A present state that is made again is the same.
        own = _where(cluster=run.cluster, run_id=run.run_id)
        found = table.scan(own, selected_fields=("extracted_at",), limit=1).to_arrow_batch_reader()
        times = [each for batch in found for each in batch.column(0).to_pylist()]
        if marks or any(each != run.extracted_at for each in times):
            raise refuse_other_reading(run, self.stream)
        return bool(times)

    def _refuse_undoing(self, table: Table, run: Run) -> None:
        from pyiceberg.expressions import And, GreaterThan, Reference
        from pyiceberg.expressions.literals import literal

        # The latest time of each file is among its bounds; so none is read, unless the run has to be refused.
        later = GreaterThan(term=Reference("extracted_at"), value=literal(run.extracted_at))
        held = table.scan(And(_where(cluster=run.cluster), later), selected_fields=("extracted_at",), limit=1)
        if any(batch.num_rows for batch in held.to_arrow_batch_reader()):
            raise refuse_undoing(run, self.stream)

    def _lacking(self, table: Table) -> list[pa.Field]:
        return fields_to_add(self.stream, self.schema, _arrow_schema(table))

    def _loaded(self) -> Table | None:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            return self.catalog.load_table(self.name)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None

    def _made(self) -> Table:
        try:
            self.catalog.create_namespace_if_not_exists(self.namespace)
        except Exception:
            # Catalogs differ in what they raise where another process has just made it.
            if not self.catalog.namespace_exists(self.namespace):
                raise
        return self.catalog.create_table_if_not_exists(self.name, self.schema, properties=NEW_TABLE)


def _append(
    table: Table, transaction: Transaction, batches: Iterator[pa.RecordBatch], schema: pa.Schema, mark: dict[str, str]
) -> None:
    """Add the batches in one snapshot, file by file.

    pyiceberg's own `append` reads ahead of its writers as far as it can, whatever that takes of memory.
    """
    from pyiceberg.io.pyarrow import _check_pyarrow_schema_compatible, _dataframe_to_data_files

    metadata = transaction.table_metadata
    _check_pyarrow_schema_compatible(metadata.schema(), schema, format_version=metadata.format_version)
    numbers = count()
    with transaction.update_snapshot(snapshot_properties=mark).fast_append() as snapshot:
        for part in _parts(batches, schema):
            for file in _dataframe_to_data_files(metadata, part, table.io, snapshot.commit_uuid, numbers):
                snapshot.append_data_file(file)
            del part  # While the next one is gathered, this one would stay.


def _read(table: Table, row_filter: BooleanExpression, *fields: str) -> Iterator[pa.RecordBatch]:
    """The rows, of these fields or all, file by file.

    pyiceberg's own reader reads ahead of its reader as far as it can, as its writer does.
    """
    from pyiceberg.io.pyarrow import ArrowScan

    planned = table.scan(row_filter, selected_fields=fields or ("*",))
    # The few columns that are asked for by name repeat themselves, and are stored that way.
    scan = ArrowScan(table.metadata, table.io, planned.projection(), row_filter, dictionary_columns=fields)
    for task in planned.plan_files():
        yield from scan.to_record_batches([task])


def _parts(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    part: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        part.append(batch)
        size += batch.nbytes
        if size >= FILE_BYTES:
            yield pa.Table.from_batches(part, schema)
            part, size = [], 0
    if part:
        yield pa.Table.from_batches(part, schema)


def _where(**values: str) -> BooleanExpression:
    from pyiceberg.expressions import AlwaysTrue, And, EqualTo, Reference
    from pyiceberg.expressions.literals import literal

    found: BooleanExpression = AlwaysTrue()
    for name, value in values.items():
        found = And(found, EqualTo(term=Reference(name), value=literal(value)))
    return found


def _arrow_schema(table: Table) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(table.schema(), include_field_ids=False)
