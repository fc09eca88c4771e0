"""One stream on its way into its table: staged in a temporary one, then merged.

`record_id` is the primary key, so that no two runs can bring an object twice.
"""
# ruff: noqa: S608 - the names in SQL are those of declared streams and fields, quoted; values travel as parameters.

from __future__ import annotations

import pyarrow as pa

from crdbexport import Run, SinkRefusedError
from crdbexport_postgres.catalog import Relation
from crdbexport_postgres.session import Session

KEY = "record_id"
# In the spelling of PostgreSQL's own `format_type`.
TYPES = {
    pa.string(): "text",
    pa.bool_(): "boolean",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.list_(pa.int64()): "bigint[]",
    pa.list_(pa.string()): "text[]",
}


class StreamTable:
    """The table of one stream in the schema, and the temporary one in which a run's records wait."""

    def __init__(self, session: Session, schema: str, stream: str, fields: pa.Schema) -> None:
        self._session = session
        self._fields = fields
        self._types = {field.name: TYPES[field.type] for field in fields}
        self._columns = ", ".join(map(quoted, fields.names))
        self._staged_name = f"staged_{stream}"
        self.staged = f"pg_temp.{quoted(self._staged_name)}"
        self.name = f"{quoted(schema)}.{quoted(stream)}"

    def stage(self, data: pa.RecordBatchReader) -> None:
        """Bring the run's records to the server, where nobody else sees them."""
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self._types.items())
        self._session.execute(f"CREATE TEMPORARY TABLE {quoted(self._staged_name)} ({columns}) ON COMMIT DROP")
        self._session.copy_in(self._staged_name, data)

    def refuse_unfit(self, held: Relation) -> None:
        """Refuse what stands at the table's name and cannot take the stream."""
        if not held.is_table:
            raise self._refusal("is no table; rename it, and the next run makes one")
        if not held.may_write:
            raise self._refusal("is not the user's to change; grant SELECT, INSERT, UPDATE and DELETE on it")
        self._refuse_columns(held)
        if not held.is_keyed:
            raise self._refusal("has no unique index on record_id; give it back its primary key")
        if self._lacking(held) and not held.is_owner:
            raise self._refusal("lacks columns that only its owner can add; make the user its owner")

    def migrate(self, held: Relation | None) -> None:
        """Create the table, or add the nullable columns that the stream has gained since."""
        if held is None:
            columns = ", ".join(map(self._declaration, self._fields))
            self._session.execute(f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY ({quoted(KEY)}))")
            return
        for field in self._lacking(held):
            self._session.execute(f"ALTER TABLE {self.name} ADD COLUMN {self._declaration(field)}")

    def refuse_older(self, run: Run) -> None:
        """Refuse a run that was read before one in the table: it would bring back what is gone since."""
        query = f"SELECT EXISTS (SELECT FROM {self.name} WHERE cluster = $1 AND extracted_at > $2) AS is_older"
        if self._session.rows(query, run.cluster, run.extracted_at) != [{"is_older": False}]:
            raise self._refusal(
                f"holds records of this cluster from a later run, which run {run.run_id} would undo; "
                "start a new run instead"
            )

    def merge(self) -> None:
        """Replace what the run saw, and add what is new; rows that are as they were are not touched."""
        changed = [name for name in self._fields.names if name != KEY]
        assignments = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changed)
        was = ", ".join(f"kept.{quoted(name)}" for name in changed)
        becomes = ", ".join(f"excluded.{quoted(name)}" for name in changed)
        self._session.execute(
            f"INSERT INTO {self.name} AS kept ({self._columns}) SELECT {self._columns} FROM {self.staged} "
            f"ON CONFLICT ({quoted(KEY)}) DO UPDATE SET {assignments} WHERE ({was}) IS DISTINCT FROM ({becomes})"
        )

    def size_bytes(self) -> int:
        """What the table takes on the server's disk, with its index."""
        [row] = self._session.rows("SELECT pg_total_relation_size($1::regclass) AS size", self.name)
        return int(row["size"])

    def _refuse_columns(self, held: Relation) -> None:
        for name, column in held.columns.items():
            wanted = self._types.get(name)
            if wanted is not None and column.type != wanted:
                raise self._misfit(name, f"has the type {column.type} and not {wanted}")
            must_have_value = column.not_null and not column.has_default
            if must_have_value and (wanted is None or self._fields.field(name).nullable):
                raise self._misfit(name, "is NOT NULL, and the sink has no value for it")
        for field in self._lacking(held):
            if not field.nullable:
                raise self._misfit(field.name, "is missing")

    def _lacking(self, held: Relation) -> list[pa.Field]:
        return [field for field in self._fields if field.name not in held.columns]

    def _misfit(self, column: str, what: str) -> SinkRefusedError:
        return self._refusal(f"column {quoted(column)} {what}; rename the table, and the next run makes a new one")

    def _refusal(self, what: str) -> SinkRefusedError:
        return SinkRefusedError(f"{self._session.where}: table {self.name}: {what}")

    def _declaration(self, field: pa.Field) -> str:
        return f"{quoted(field.name)} {self._types[field.name]}{'' if field.nullable else ' NOT NULL'}"


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
