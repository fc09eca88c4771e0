"""The table of one stream in the file, and merging the staged records of a run into it.

The catalog `target` is the file. The tables have no primary key: the merge itself keeps `record_id` unique, and an
index would cost memory for every row.
"""
# ruff: noqa: S608 - the names in SQL are those of declared streams and fields; values travel as parameters.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa

from crdbexport import Coverage, Run, SinkRefusedError, Staging

OBJECT = ("database_name", "schema_name", "table_name")


class StreamTable:
    """The table of one stream in the attached file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, stream: str, schema: pa.Schema) -> None:
        self._connection = connection
        self._stream = stream
        self._schema = schema
        self._table = f"target.main.{_quoted(stream)}"
        with self._visible("declared", schema.empty_table()):
            # DuckDB itself maps Arrow's types to its own.
            declared = connection.table("declared")
            self._types = dict(zip(declared.columns, map(str, declared.types), strict=True))

    def check(self) -> None:
        """Refuse a table of the file that cannot take the stream; one that does not exist yet can."""
        if held := self._types_in_file():
            self._lacking(held)

    def migrate(self) -> None:
        """Create the table, or add the nullable columns that the stream has gained since."""
        if held := self._types_in_file():
            for field in self._lacking(held):
                self._connection.execute(f"ALTER TABLE {self._table} ADD COLUMN {self._declaration(field)}")
        else:
            columns = ", ".join(self._declaration(field) for field in self._schema)
            self._connection.execute(f"CREATE TABLE {self._table} ({columns})")

    def refuse_older(self, run: Run) -> None:
        """Refuse a run that was read before one in the file: it would bring back what is gone since."""
        later = self._connection.execute(
            f"SELECT count(*) FROM {self._table} WHERE cluster = ? AND extracted_at > ?",
            [run.cluster, run.extracted_at],
        )
        if later.fetchall() != [(0,)]:
            raise SinkRefusedError(
                f"table {_quoted(self._stream)} holds records of this cluster from a later run, "
                f"which run {run.run_id} would undo; start a new run instead"
            )

    def merge(self, cluster: str, coverage: Coverage | None, staging: Staging) -> int:
        """Delete what the run looked for, replace what else it brings; answers the rows brought."""
        if coverage is not None:
            self._delete_gone(cluster, coverage)
        if self._holds(cluster):
            with self._arriving(staging):
                brought = "SELECT record_id FROM arriving"
                self._connection.execute(f"DELETE FROM {self._table} WHERE record_id IN ({brought})")
        with self._arriving(staging):
            inserted = self._connection.execute(f"INSERT INTO {self._table} BY NAME FROM arriving").fetchall()
        return int(inserted[0][0])

    def _holds(self, cluster: str) -> bool:
        rows = self._connection.execute(f"SELECT 1 FROM {self._table} WHERE cluster = ? LIMIT 1", [cluster])
        return bool(rows.fetchall())

    @contextmanager
    def _arriving(self, staging: Staging) -> Iterator[None]:
        """Let one statement of SQL read what is staged of the stream."""
        with staging.read(self._stream) as reader, self._visible("arriving", reader):
            yield

    def _delete_gone(self, cluster: str, coverage: Coverage) -> None:
        """Delete the rows of objects which the run read in full: those that are still there it brings."""
        names = [name for name in OBJECT if name in self._schema.names]
        left = self._connection.execute(
            f"SELECT DISTINCT {', '.join(names)} FROM {self._table} WHERE cluster = ?", [cluster]
        ).fetchall()
        covered = [dict(zip(names, each, strict=True)) for each in left if coverage.covers(*each)]
        schema = pa.schema([self._schema.field(name) for name in names])
        same_object = " AND ".join(f"{_quoted(self._stream)}.{name} = covered.{name}" for name in names)
        with self._visible("covered", pa.Table.from_pylist(covered, schema=schema)):
            self._connection.execute(
                f"DELETE FROM {self._table} USING covered WHERE cluster = ? AND {same_object}", [cluster]
            )

    def _lacking(self, held: dict[str, str]) -> list[pa.Field]:
        """The stream's fields that its table in the file, with the columns `held`, can and must gain."""
        for name, its_type in held.items():
            if its_type != self._types.get(name, its_type):
                raise self._misfit(name, f"has the type {its_type} and not {self._types[name]}")
        lacking = [field for field in self._schema if field.name not in held]
        for field in lacking:
            if not field.nullable:
                raise self._misfit(field.name, "is missing")
        return lacking

    def _misfit(self, column: str, what: str) -> SinkRefusedError:
        return SinkRefusedError(
            f"table {_quoted(self._stream)}: column {_quoted(column)} {what}; "
            "rename the table, and the next run makes a new one"
        )

    def _types_in_file(self) -> dict[str, str]:
        """The types of the columns of the stream's table in the file; empty where there is no table."""
        columns = self._connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'target' AND schema_name = 'main' AND table_name = ?",
            [self._stream],
        )
        return dict(columns.fetchall())

    def _declaration(self, field: pa.Field) -> str:
        return f"{_quoted(field.name)} {self._types[field.name]}{'' if field.nullable else ' NOT NULL'}"

    @contextmanager
    def _visible(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Let SQL read Arrow rows under a name."""
        self._connection.register(name, rows)
        try:
            yield
        finally:
            # In a transaction that a statement has failed, the name goes with it.
            with suppress(duckdb.TransactionException):
                self._connection.unregister(name)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
