"""The sink: it stages a run on this machine, and merges it in one transaction when the run commits.

The server is asked while the sink checks it and while it commits, and is left alone during the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Annotated, ClassVar

import msgspec
import pyarrow as pa

from crdbexport import (
    Artifact,
    Batch,
    ConfigError,
    Outcome,
    Receipt,
    RecordRefusedError,
    Run,
    Sink,
    SinkConfig,
    SinkRefusedError,
    Staging,
)
from crdbexport.config import Secret
from crdbexport.errors import shown
from crdbexport_postgres.catalog import database, refuse_unfit, relations
from crdbexport_postgres.gone import GoneRows, Names, object_names
from crdbexport_postgres.session import Session, session
from crdbexport_postgres.tables import TYPES, StreamTable, quoted
from crdbexport_postgres.unstorable import unstorable
from crdbexport_postgres.uri import ConnectionURI

NAME_BYTES = 63
# One for each schema, so that runs into other ones do not wait.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('crdbexport-postgres'), hashtext($1))::text AS locked"


class PostgresSink(Sink):
    """Keeps the present state of every cluster in a PostgreSQL database, with one table a stream."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        uri: str
        """Where the database is: `postgresql://user@host/database`, with libpq's parameters."""
        password: Secret | None = None
        """Goes before the password in the URI and that of the environment."""
        schema: str = "crdbexport"
        """The schema that holds the tables; the first run that commits creates it."""
        lock_timeout_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)] = 60.0
        """How long a commit waits for another run's, or for whoever else holds the tables."""
        timeout_seconds: float = 1800.0

    conformance: ClassVar[str] = "crdbexport_postgres.conformance:PostgresConformance"
    _staging: Staging | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._uri = ConnectionURI(config.uri)
        _refuse_name(config.schema)
        self._refused: dict[str, set[Names]] = {}
        self._receipt: Receipt | None = None

    def shown_target(self) -> str:
        return self._uri.shown

    def secrets(self) -> Iterable[str]:
        yield from super().secrets()
        yield from self._uri.secrets()

    def preflight(self, run: Run) -> None:
        """Refuse a server that cannot be reached or written, and a table that misfits; changes nothing there."""
        for stream, fields in run.streams.items():
            _refuse_types(stream, fields)
        with self._session() as opened:
            held = relations(opened, self.config.schema)
            found = database(opened, self.config.schema)
            refuse_unfit(opened, found, self.config.schema, lacks_tables=not held.keys() >= run.streams.keys())
            for stream, table in self._tables(opened, run):
                if stream in held:
                    table.refuse_unfit(held[stream])

    def open(self, run: Run) -> None:
        self._staging = Staging(run, f"{self._uri.shown}\0{self.config.schema}")

    def write(self, batch: Batch) -> None:
        if (refused := unstorable(batch.data)).num_rows:
            names = (refused.column(name).to_pylist() for name in object_names(refused.schema))
            self._refused.setdefault(batch.stream, set()).update(zip(*names, strict=True))
            raise RecordRefusedError(
                refused.column("record_id").to_pylist(), "a text holds a NUL, which PostgreSQL cannot store"
            )
        self._staged.write(batch)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            with self._session() as opened:
                receipt = self._merged(opened, run, outcome)
                opened.commit()
            self._receipt = receipt
            self._staged.close()
        return self._receipt

    def abort(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _merged(self, opened: Session, run: Run, outcome: Outcome) -> Receipt:
        tables = dict(self._tables(opened, run))
        for stream, table in tables.items():
            with self._staged.read(stream) as data:
                table.stage(data)
        # What is long is done: others wait for the merge alone.
        opened.rows(LOCK, self.config.schema)
        self._migrate(opened, tables)
        for stream, table in tables.items():
            table.refuse_older(run)
            if (coverage := outcome.coverage.get(stream)) is not None:
                gone = GoneRows(opened, table, stream, run.streams[stream], run.cluster)
                gone.delete(coverage, self._refused.get(stream, ()))
            table.merge()
        artifacts = tuple(
            Artifact(location=f"{self._uri.shown}#{table.name}", stream=stream, rows=self._staged.rows(stream))
            for stream, table in tables.items()
        )
        # The last question of the transaction: had anything failed unheard, it would be refused, and COMMIT would not.
        return Receipt(artifacts, sum(table.size_bytes() for table in tables.values()))

    def _migrate(self, opened: Session, tables: dict[str, StreamTable]) -> None:
        if not database(opened, self.config.schema).schema_exists:
            opened.execute(f"CREATE SCHEMA {quoted(self.config.schema)}")
        held = relations(opened, self.config.schema)
        for stream, table in tables.items():
            if stream in held:
                table.refuse_unfit(held[stream])
            table.migrate(held.get(stream))

    def _tables(self, opened: Session, run: Run) -> Iterator[tuple[str, StreamTable]]:
        for stream, fields in run.streams.items():
            yield stream, StreamTable(opened, self.config.schema, stream, fields)

    def _session(self) -> AbstractContextManager[Session]:
        password = self.config.password.reveal() if self.config.password else None
        return session(self._uri.completed(password), self._uri.shown, self.config.lock_timeout_seconds)

    @property
    def _staged(self) -> Staging:
        assert self._staging is not None  # noqa: S101 (set by `open`, which comes first)
        return self._staging


def _refuse_name(schema: str) -> None:
    if not schema or "\0" in schema or len(schema.encode("utf-8", "surrogatepass")) > NAME_BYTES:
        raise ConfigError(f"option schema: {shown(schema)} is no name of a schema: it has 1 to {NAME_BYTES} bytes")
    if schema.startswith("pg_"):
        raise ConfigError(f"option schema: {shown(schema)}: names that begin with pg_ are PostgreSQL's own")


def _refuse_types(stream: str, fields: pa.Schema) -> None:
    for field in fields:
        if field.type not in TYPES:
            raise SinkRefusedError(
                f"stream {stream}: field {field.name} has the type {field.type}, for which this version of "
                "crdbexport-postgres has no column type; update it"
            )
