"""The Delta table of one stream: what it must be, and bringing a run into it in one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from crdbexport import Artifact, Run, SinkError
from crdbexport.disk import private_file, storage_errors
from crdbexport.redaction import without_credentials
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
from crdbexport_deltalake.place import Place, cause_of, errors_at

if TYPE_CHECKING:
    from deltalake import DeltaTable

ROW_GROUP_ROWS = 122_880


class ConflictError(Exception):
    """Another process has committed to the table meanwhile."""


@dataclass(frozen=True)
class StreamTable:
    """The table of one stream below a place."""

    place: Place
    stream: str
    schema: pa.Schema

    @property
    def location(self) -> str:
        return self.place.of(self.stream)

    def check(self) -> None:
        """Refuse a store that cannot be read, and a table that cannot take the stream; none at all can."""
        with errors_at(self.location):
            if table := self._loaded(impatient=True):
                self._fits(table)

    def publish(self, delivery: Delivery) -> Artifact:
        """Bring the records into the table in one commit, unless the run has one there; answers what is there."""
        rows = delivery.staging.rows(self.stream)
        with errors_at(self.location):
            for wait in waits():
                try:
                    size = self._tried(delivery)
                    return Artifact(without_credentials(self.location), self.stream, rows, size)
                except ConflictError as conflict:
                    cause = str(conflict)
                    time.sleep(wait)
        raise SinkError(
            f"{without_credentials(self.location)}: others commit to the table all the time ({cause}); "
            "run the same command again when they are done"
        )

    def _tried(self, delivery: Delivery) -> int | None:
        """One attempt; answers the bytes that it added, where they are known."""
        from deltalake.exceptions import DeltaError

        table = self._loaded() or self._made()
        if self._is_there(table, delivery):
            return None
        self._fits(table)
        before = table.version()
        files = _sizes(table)
        try:
            self._write(table, delivery)
        except DeltaError as error:
            now = self._loaded()
            if now is not None and now.version() > before:
                raise ConflictError(cause_of(error)) from error
            raise
        table.update_incremental()
        if table.version() != before + 1:
            return None  # Somebody else's files are among the new ones.
        return sum(size for path, size in _sizes(table).items() if path not in files)

    def _is_there(self, table: DeltaTable, delivery: Delivery) -> bool:
        """Whether the run has its commit; one that was read anew under its id may only replace the state it left."""
        held = table.transaction_version(commit_id(delivery.run))
        if held is None or held == read_at(delivery.run):
            return held is not None
        if delivery.replaces:
            return False
        raise refuse_other_reading(delivery.run, self.stream)

    def _write(self, table: DeltaTable, delivery: Delivery) -> None:
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake

        transaction = Transaction(commit_id(delivery.run), read_at(delivery.run), time.time_ns() // 1_000_000)
        rules: dict[str, Any] = {"mode": "append"}
        batches = delivery.batches(self.stream)
        schema = self.schema
        if delivery.replaces:
            only = "cluster = '" + delivery.run.cluster.replace("'", "''") + "'"
            self._refuse_undoing(table, delivery.run, only)
            rules = {"mode": "overwrite", "predicate": only}
            state = delivery.present_state(self.stream)
            if self._may_keep(table, state, only):
                schema = pa.schema([*schema, *(each for each in _arrow_schema(table) if each.name not in schema.names)])
                batches = chain(batches, self._staying(table, delivery, state, only, schema))
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, (shaped(each, schema) for each in batches)),
            schema_mode="merge",
            commit_properties=CommitProperties(app_transactions=[transaction]),
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP_ROWS),
            **rules,
        )

    def _may_keep(self, table: DeltaTable, state: PresentState, only: str) -> bool:
        deciding = state.deciding(self.schema)
        # Many rows are of one object; there is no need to look at each.
        held = _asked(table, f"DISTINCT {', '.join(deciding.names)}", only)
        return state.may_keep(shaped(each, deciding) for each in held)

    def _staying(
        self, table: DeltaTable, delivery: Delivery, state: PresentState, only: str, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The rows of the cluster that the run did not look for; read at once, for delta-rs cannot within a write."""
        held = pa.RecordBatchReader.from_stream(table.scan(predicate=only))
        path = delivery.staging.directory / f"{self.stream}.staying"
        with storage_errors(path), private_file(path, large=True) as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in self._read_from(held):
                writer.write_batch(state.staying(shaped(batch, schema)))
        return _read(path)

    def _read_from(self, held: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The batches; where they cannot be read, it is the table's trouble and not that of the disk."""
        with errors_at(self.location):
            yield from held

    def _refuse_undoing(self, table: DeltaTable, run: Run, only: str) -> None:
        (latest,) = _asked(table, "max(extracted_at)", only).read_all().column(0).to_pylist()
        if latest and latest > run.extracted_at:
            raise refuse_undoing(run, self.stream)

    def _fits(self, table: DeltaTable) -> None:
        fields_to_add(self.stream, self.schema, _arrow_schema(table))

    def _loaded(self, *, impatient: bool = False) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if self.place.directory and not (self.place.directory / self.stream / "_delta_log").is_dir():
            return None
        try:
            return DeltaTable(self.location, storage_options=self.place.storage_options(impatient=impatient))
        except TableNotFoundError as error:
            if "scheme" in str(error):
                raise
            return None

    def _made(self) -> DeltaTable:
        """A new table; without rows, for only one process can bring the first of them into a table that is there."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            options = self.place.storage_options()
            return DeltaTable.create(self.location, self.schema, mode="ignore", storage_options=options)
        except DeltaError as error:
            if self._loaded() is None:
                raise
            raise ConflictError(cause_of(error)) from error


def _asked(table: DeltaTable, what: str, only: str) -> pa.RecordBatchReader:
    from deltalake import QueryBuilder

    query = f"SELECT {what} FROM held WHERE {only}"  # noqa: S608 (names of our own, and a quoted literal)
    return pa.RecordBatchReader.from_stream(QueryBuilder().register("held", table).execute(query))


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def _arrow_schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def _sizes(table: DeltaTable) -> dict[str, int]:
    files = pa.table(table.get_add_actions(flatten=True))
    return dict(zip(files.column("path").to_pylist(), files.column("size_bytes").to_pylist(), strict=True))
