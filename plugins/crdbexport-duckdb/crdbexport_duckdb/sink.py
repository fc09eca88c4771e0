"""The sink: it stages a run outside of the file, and merges it in one transaction when the run commits.

The file is open only while the sink checks it and while it commits: during the run others may read it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import duckdb

from crdbexport import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig, Staging
from crdbexport_duckdb.database_file import attached, check_place, connect, errors_of, is_empty, transaction
from crdbexport_duckdb.merge import StreamTable


class DuckDBSink(Sink):
    """Keeps the present state of every cluster in one DuckDB file, with one table a stream."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        """The DuckDB file; the first run that commits creates it."""
        lock_timeout_seconds: float = 10.0
        """How long to wait for another process that has the file open."""

    conformance: ClassVar[str] = "crdbexport_duckdb.conformance:DuckDBConformance"
    _connection: duckdb.DuckDBPyConnection
    _staging: Staging

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        # An absolute path is always a file to DuckDB; `:memory:` or `md:name` would not be.
        self._path = config.path.absolute()
        self._tables: dict[str, StreamTable] = {}
        self._resources = ExitStack()
        self._receipt: Receipt | None = None

    def directories(self) -> Iterable[Path]:
        return (self._path,)

    def preflight(self, run: Run) -> None:
        """Refuse a path that cannot be written, a file that is held or no database, a table that misfits."""
        check_place(self._path)
        if not self._path.exists():
            return
        with errors_of(self._path), closing(connect(self._spill_of(run))) as connection:
            tables = _stream_tables(connection, run)
            with attached(connection, self._path, self.config.lock_timeout_seconds):
                for table in tables.values():
                    table.check()

    def open(self, run: Run) -> None:
        with errors_of(self._path):
            spill = self._spill_of(run)
            # What a killed process left of the same run.
            shutil.rmtree(spill, ignore_errors=True)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            spill.mkdir(mode=0o700)
            self._resources.callback(shutil.rmtree, spill, ignore_errors=True)
            self._staging = Staging(run, str(self._path), spill)
            self._resources.callback(self._staging.close)
            self._connection = self._resources.enter_context(closing(connect(spill)))
            self._tables = _stream_tables(self._connection, run)

    def write(self, batch: Batch) -> None:
        with errors_of(self._path):
            self._staging.write(batch)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            with errors_of(self._path):
                artifacts = self._publish(run, outcome)
                self._receipt = Receipt(artifacts, self._path.stat().st_size)
            self._resources.close()
        return self._receipt

    def abort(self) -> None:
        self._resources.close()

    def _publish(self, run: Run, outcome: Outcome) -> tuple[Artifact, ...]:
        existed = self._path.exists()
        with attached(self._connection, self._path, self.config.lock_timeout_seconds):
            try:
                with transaction(self._connection):
                    return tuple(self._merged(run, outcome))
            except BaseException:
                if not existed and is_empty(self._connection):
                    # While it is still locked: a moment later it may hold another run.
                    self._path.unlink(missing_ok=True)
                raise

    def _merged(self, run: Run, outcome: Outcome) -> Iterator[Artifact]:
        for stream, table in self._tables.items():
            table.migrate()
            table.refuse_older(run)
            rows = table.merge(run.cluster, outcome.coverage.get(stream), self._staging)
            yield Artifact(location=str(self._path), stream=stream, rows=rows)

    def _spill_of(self, run: Run) -> Path:
        """Where rows wait for the commit, and what memory cannot hold of it: beside the file, in the run's own name."""
        digest = sha256(f"{run.cluster}\0{run.run_id}".encode()).hexdigest()[:16]
        return self._path.with_name(f".{self._path.name}.{digest}.staging")


def _stream_tables(connection: duckdb.DuckDBPyConnection, run: Run) -> dict[str, StreamTable]:
    return {stream: StreamTable(connection, stream, schema) for stream, schema in run.streams.items()}
