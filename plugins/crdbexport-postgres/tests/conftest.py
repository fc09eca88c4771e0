"""One PostgreSQL for all tests, with a fresh schema for each, and runs that are delivered to it by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from crdbexport_postgres import PostgresSink
from crdbexport_postgres.local_server import LocalServer, local_server

from crdbexport import Batch, Coverage, Outcome, Receipt, Run
from crdbexport.selection import Selection
from crdbexport.testing import sample_run

SCHEMA = "crdbexport"
Batches = Sequence[tuple[str, pa.RecordBatch]]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test, and no state of a test reaches the machine."""
    for name in [name for name in os.environ if name.startswith(("CRDBEXPORT_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CRDBEXPORT_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with local_server() as running:
        yield running


@dataclass
class Target:
    """The test's own database, empty at first, and what a test does with it."""

    server: LocalServer
    database: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return self.server.uri(self.database)

    def sink(self, **options: Any) -> PostgresSink:
        return PostgresSink(PostgresSink.Config(**{"uri": self.uri, "lock_timeout_seconds": 0.2} | options))

    def written(self, run: Run, batches: Batches, **options: Any) -> PostgresSink:
        """A sink that has taken the batches, and has not committed."""
        sink = self.sink(**options)
        sink.preflight(run)
        sink.open(run)
        for sequence, (stream, data) in enumerate(batches):
            sink.write(Batch(stream, sequence, data))
        return sink

    def deliver(self, run: Run, batches: Batches, coverage: Coverage | None = None, **options: Any) -> Receipt:
        sink = self.written(run, batches, **options)
        try:
            return sink.commit(run, outcome_of(run, coverage))
        finally:
            sink.abort()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(dbapi.connect(self.uri)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def execute(self, *statements: str, uri: str = "") -> None:
        with closing(dbapi.connect(uri or self.uri, autocommit=True)) as connection:
            for sql in statements:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(sql)

    def column(self, table: str, column: str) -> list[Any]:
        """The values of a column of one of the sink's tables, in order."""
        return [value for (value,) in self.query(f'SELECT {column} FROM "{SCHEMA}"."{table}" ORDER BY 1')]


@pytest.fixture
def target(server: LocalServer, request: pytest.FixtureRequest) -> Iterator[Target]:
    admin = Target(server, "postgres")
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    admin.execute(f'CREATE DATABASE "{name}"')
    yield Target(server, name)
    admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def outcome_of(run: Run, coverage: Coverage | Mapping[str, Coverage] | None = None) -> Outcome:
    """The outcome of a complete run over the whole cluster, unless `coverage` says otherwise."""
    everything = coverage or Coverage(Selection())
    by_stream = dict.fromkeys(run.streams, everything) if isinstance(everything, Coverage) else everything
    return Outcome(complete=True, gaps=(), coverage=by_stream, rows={})


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    return outcome_of


@pytest.fixture
def a_run() -> Callable[..., Run]:
    """Runs by number: each was read an hour after the one before."""

    def run(number: int = 1, *streams: str, cluster: str = "prod") -> Run:
        first = sample_run(f"run-{number}", cluster=cluster, **({"streams": streams} if streams else {}))
        return replace(first, extracted_at=first.extracted_at + timedelta(hours=number))

    return run
