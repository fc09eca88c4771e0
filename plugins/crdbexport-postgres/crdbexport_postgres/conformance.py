"""The sink under test, for `crdbexport plugins conformance postgres` and for pytest."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from adbc_driver_postgresql import dbapi

from crdbexport import Sink
from crdbexport.testing import Capabilities, SinkConformance
from crdbexport_postgres.local_server import LocalServer, local_server
from crdbexport_postgres.sink import PostgresSink
from crdbexport_postgres.tables import quoted


class PostgresConformance(SinkConformance):
    """Every place is a schema of its own: on the server of the target, else on one that is started for the purpose."""

    capabilities = Capabilities(upsert=True, refuses_records=True, remote=True)
    poison: ClassVar[dict[str, Any]] = {"table_name": "a\0b"}
    wrong_options: ClassVar[dict[str, Any]] = {
        "uri": "mysql://127.0.0.1/clusters",
        "schema": "pg_clusters",
        "lock_timeout_seconds": 0,
    }

    @contextmanager
    def serve(self, place: Path) -> Iterator[None]:
        try:
            yield
        finally:
            with closing(dbapi.connect(self._uri)) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(f"DROP SCHEMA IF EXISTS {quoted(_schema(place))} CASCADE")
                connection.commit()

    def make_sink(self, place: Path) -> Sink:
        return PostgresSink(PostgresSink.Config(uri=self._uri, schema=_schema(place)))

    def read_back(self, place: Path) -> dict[str, list[dict[str, Any]]]:
        with closing(dbapi.connect(self._uri)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SELECT tablename::text FROM pg_tables WHERE schemaname = $1", [_schema(place)])
            names = [name for (name,) in cursor.fetchall()]
            return {name: _rows(cursor, f"{quoted(_schema(place))}.{quoted(name)}") for name in names}

    @property
    def _uri(self) -> str:
        # The canary is the password of a key that is not there: any server can be given it.
        uri = self.target or _own_server(self.canary).uri()
        return f"{uri}{'&' if '?' in uri else '?'}sslpassword={self.canary}"


@cache
def _own_server(password: str) -> LocalServer:
    """A server for as long as this process lasts."""
    resources = ExitStack()
    atexit.register(resources.close)
    return resources.enter_context(local_server(password))


def _schema(place: Path) -> str:
    return f"crdbexport_kit_{sha256(str(place).encode()).hexdigest()[:24]}"


def _rows(cursor: dbapi.Cursor, table: str) -> list[dict[str, Any]]:
    cursor.execute(f"SELECT * FROM {table}")  # noqa: S608 (the names were quoted)
    rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
    return rows
