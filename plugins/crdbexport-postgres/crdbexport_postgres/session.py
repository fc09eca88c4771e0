"""One connection with one transaction: it ends with everything it did, or with nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from crdbexport import SinkError
from crdbexport_postgres.meanings import AGAIN, refused_connection, server_errors

# Within the transaction alone, so that a pool of connections may lie in between.
SETTINGS = {
    "client_min_messages": "error",  # libpq prints what is less.
    "search_path": "pg_catalog",
    "tcp_keepalives_idle": "60",  # Who is gone without a word holds no lock for hours.
}


class Session:
    """Statements within the transaction."""

    def __init__(self, connection: dbapi.Connection, where: str) -> None:
        self._connection = connection
        self.where = where

    def execute(self, sql: str, *values: object) -> None:
        """Run a statement that answers no rows."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql, list(values) or None)

    def table(self, sql: str, *values: object) -> pa.Table:
        """The rows that a query answers."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql, list(values) or None)
            return cursor.fetch_arrow_table()

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The same, as dictionaries."""
        rows: list[dict[str, Any]] = self.table(sql, *values).to_pylist()
        return rows

    def copy_in(self, table: str, data: pa.RecordBatchReader | pa.Table) -> None:
        """Add rows to a temporary table by binary COPY, batch by batch."""
        with closing(self._connection.cursor()) as cursor:
            cursor.adbc_ingest(table, data, mode="append", db_schema_name="pg_temp")

    def commit(self) -> None:
        """End the transaction; raises SinkError where nobody knows whether it has."""
        try:
            self._connection.commit()
        except dbapi.Error as error:
            if error.sqlstate:
                raise
            unsure = True
        else:
            unsure = False
        if unsure:
            raise SinkError(
                f"{self.where}: the connection broke in COMMIT, and the run may be there or not; {AGAIN}: "
                "what is there stays as it is"
            )


@contextmanager
def session(uri: str, where: str, lock_timeout_seconds: float) -> Iterator[Session]:
    """A transaction on a connection of its own; what `commit` does not end is undone. Errors are those of the sink."""
    with closing(_connected(uri, where)) as connection, server_errors(where):
        opened = Session(connection, where)
        opened.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        for name, value in {**SETTINGS, "lock_timeout": f"{round(lock_timeout_seconds * 1000)}ms"}.items():
            opened.rows("SELECT set_config($1, $2, true)", name, value)
        yield opened


def _connected(uri: str, where: str) -> dbapi.Connection:
    try:
        return dbapi.connect(uri)
    except dbapi.Error as error:
        text = str(error)
    # Not within the handler: the driver's error may quote the URI, and would come along as the context.
    raise refused_connection(where, text)
