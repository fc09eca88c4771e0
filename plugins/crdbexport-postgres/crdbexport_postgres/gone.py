"""Deleting what is gone: rows that the run looked for, by the names of their objects, and did not see."""
# ruff: noqa: S608 - see tables.py

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from crdbexport import Coverage
from crdbexport_postgres.session import Session
from crdbexport_postgres.tables import StreamTable, quoted

OBJECT = ("database_name", "schema_name", "table_name")
# So many objects are looked at together: what many gone tables take of memory stays bounded.
CHUNK = 20_000
Names = tuple[str, ...]


def object_names(fields: pa.Schema) -> list[str]:
    """The fields by which the stream names its object, which is a database or a table."""
    return [name for name in OBJECT if name in fields.names]


class GoneRows:
    """The rows of one cluster in a table that the run, which is staged, did not bring."""

    def __init__(self, session: Session, table: StreamTable, stream: str, fields: pa.Schema, cluster: str) -> None:
        self._session = session
        self._names = object_names(fields)
        self._unseen, self._covered = f"unseen_{stream}", f"covered_{stream}"
        self._table = table
        self._cluster = cluster
        self._where = (
            f"kept.cluster = $1 AND NOT EXISTS (SELECT FROM {table.staged} AS s WHERE s.record_id = kept.record_id)"
        )

    def delete(self, coverage: Coverage, spared: Collection[Names]) -> None:
        """Delete them where the coverage says that the run looked; never those of the objects that are `spared`."""
        if not coverage.known or not (objects := self._list_objects()):
            return
        self._create(self._covered)
        columns = ", ".join(map(quoted, self._names))
        for first in range(0, objects, CHUNK):
            chunk = self._session.table(
                f"SELECT {columns} FROM pg_temp.{quoted(self._unseen)} WHERE number > $1 AND number <= $2",
                first,
                first + CHUNK,
            )
            looked_at = [tuple(row.values()) for row in chunk.to_pylist()]
            is_gone = [coverage.covers(*names) and names not in spared for names in looked_at]
            if any(is_gone):
                self._session.copy_in(self._covered, chunk.filter(pa.array(is_gone)))
        same_object = " AND ".join(f"kept.{quoted(name)} = covered.{quoted(name)}" for name in self._names)
        self._session.execute(
            f"DELETE FROM {self._table.name} AS kept USING pg_temp.{quoted(self._covered)} AS covered "
            f"WHERE {self._where} AND {same_object}",
            self._cluster,
        )

    def _list_objects(self) -> int:
        """Number the objects that have such rows; answers how many they are."""
        columns = ", ".join(map(quoted, self._names))
        self._create(self._unseen, "number bigint GENERATED ALWAYS AS IDENTITY, ")
        self._session.execute(
            f"INSERT INTO pg_temp.{quoted(self._unseen)} ({columns}) "
            f"SELECT DISTINCT {columns} FROM {self._table.name} AS kept WHERE {self._where}",
            self._cluster,
        )
        [row] = self._session.rows(f"SELECT count(*) AS objects FROM pg_temp.{quoted(self._unseen)}")
        return int(row["objects"])

    def _create(self, name: str, before: str = "") -> None:
        columns = ", ".join(f"{quoted(each)} text" for each in self._names)
        self._session.execute(f"CREATE TEMPORARY TABLE {quoted(name)} ({before}{columns}) ON COMMIT DROP")
