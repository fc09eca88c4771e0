"""Walks a cluster: databases in order, each one's tables in order, their parts in the server's own order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from crdbexport.cluster.dialects import Dialect
from crdbexport.cluster.model import Database, DatabaseDetails, Grant, Table, TableDetails
from crdbexport.cluster.rows import (
    Row,
    column_rows,
    database_grant_rows,
    database_row,
    index_rows,
    table_grant_rows,
    table_row,
)
from crdbexport.cluster.session import Session
from crdbexport.cluster.window import in_order
from crdbexport.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    ConfigError,
    UnreadableError,
    shown,
)
from crdbexport.records import FETCHED, NOT_REQUESTED, Gap, Part
from crdbexport.selection import Selection

T = TypeVar("T")
# What came of one part: its value, why there is none, or None where it was not asked for.
Read: TypeAlias = T | UnreadableError | None

# How many databases are read ahead: their lists of tables are held meanwhile.
DATABASES_AHEAD = 4
TABLES_AHEAD_PER_CONNECTION = 8

log = logging.getLogger(__name__)


@dataclass
class WalkCounts:
    """How far the walk is. `details_wanted` and `details_fetched` count parts: one answer the cluster was asked for."""

    databases_listed: int = 0
    databases_done: int = 0
    tables_listed: int = 0
    tables_done: int = 0
    details_wanted: int = 0
    details_fetched: int = 0


@dataclass(frozen=True)
class DatabaseRead:
    database: Database
    details: Read[DatabaseDetails]
    grants: Read[list[Grant]]
    tables: Read[list[Table]]


@dataclass(frozen=True)
class TableRead:
    table: Table
    details: Read[TableDetails]


@dataclass
class Extractor:
    """Reads the selected databases through a dialect and tells rows, stream by stream, in a fixed order.

    A part that cannot be read becomes a gap; its object keeps its record. `counts` and `gaps` are complete once
    `rows` has ended.
    """

    session: Session
    dialect: Dialect
    selection: Selection
    streams: Collection[str]
    concurrency: int
    counts: WalkCounts = field(default_factory=WalkCounts)
    gaps: list[Gap] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._parts = self.dialect.parts(self.streams)

    async def rows(self) -> AsyncGenerator[tuple[str, list[Row]], None]:
        """Rows of one object at a time, with the stream that they belong to."""
        window = self.concurrency * TABLES_AHEAD_PER_CONNECTION
        async with (
            aclosing(self._objects()) as objects,
            aclosing(in_order(objects, self._read, window=window)) as reads,
        ):
            async for each in reads:
                told = self._tell_database(each) if isinstance(each, DatabaseRead) else self._tell_table(each)
                for stream, rows in told:
                    if stream in self.streams and rows:
                        yield stream, rows
        self._refuse_nothing()

    async def probe(self) -> None:
        """Read every database's own parts and one table of each, for the sake of `counts` and `gaps` alone."""
        databases = _each(await self.selected())
        async with aclosing(in_order(databases, self._sample, window=DATABASES_AHEAD)) as samples:
            async for read, table in samples:
                self._note_database(read)
                if table is not None:
                    self._note_gap(table.details, "details", table.table.database, table.table)

    async def _sample(self, database: Database) -> tuple[DatabaseRead, TableRead | None]:
        read = await self.read_database(database)
        tables = read.tables if isinstance(read.tables, list) else []
        return read, TableRead(tables[0], await self.read_table(tables[0])) if tables else None

    async def selected(self) -> list[Database]:
        """The databases to read, in order of their names' code points."""
        listed = {each.name: each for each in reversed(await self.dialect.databases(self.session))}
        self._refuse_unknown(listed)
        chosen = [listed[name] for name in sorted(listed) if self.selection.selects(name)]
        if self.selection.include and not chosen:
            # An empty snapshot would take the place of a full one.
            raise ConfigError("--database and --exclude-database leave no database to read; check the patterns")
        self.counts.databases_listed = len(chosen)
        return chosen

    def _refuse_unknown(self, listed: Iterable[str]) -> None:
        for pattern in self.selection.unmatched(listed):
            message = f"--database {shown(pattern)} matches none of the databases that the account sees"
            if any(character in pattern for character in "*?["):
                log.warning(message, extra={"event": "pattern_unmatched", "pattern": pattern})
            else:
                raise ConfigError(f"{message}; check the name, or its CONNECT privilege")

    async def _objects(self) -> AsyncGenerator[DatabaseRead | Table, None]:
        """Each database, read, and then its tables, not yet read."""
        async with aclosing(
            in_order(_each(await self.selected()), self.read_database, window=DATABASES_AHEAD)
        ) as reads:
            async for read in reads:
                yield read
                for table in read.tables if isinstance(read.tables, list) else ():
                    yield table

    async def _read(self, item: DatabaseRead | Table) -> DatabaseRead | TableRead:
        if isinstance(item, DatabaseRead):
            return item
        return TableRead(item, await self.read_table(item))

    async def read_database(self, database: Database) -> DatabaseRead:
        """The database's own parts, asked for side by side."""
        details, grants, tables = await asyncio.gather(
            self._part(self._parts.database_details, self.dialect.database_details(self.session, database)),
            self._part(self._parts.database_grants, self.dialect.database_grants(self.session, database)),
            self._part(self._parts.tables, self._tables(database)),
        )
        return DatabaseRead(database, details, grants, tables)

    async def read_table(self, table: Table) -> Read[TableDetails]:
        return await self._part(self._parts.table_details, self.dialect.table_details(self.session, table))

    async def _tables(self, database: Database) -> list[Table]:
        listed = await self.dialect.tables(self.session, database)
        distinct = {(each.schema, each.name): each for each in reversed(listed)}
        tables = [distinct[key] for key in sorted(distinct)]
        self.counts.tables_listed += len(tables)
        return tables

    async def _part(self, wanted: bool, reading: Coroutine[Any, Any, T]) -> Read[T]:
        if not wanted:
            reading.close()
            return None
        self.counts.details_wanted += 1
        try:
            value = await reading
        except UnreadableError as error:
            return error
        self.counts.details_fetched += 1
        return value

    def _tell_database(self, read: DatabaseRead) -> Iterator[tuple[str, list[Row]]]:
        database = read.database
        self.counts.databases_done += 1
        self._note_database(read)
        details = read.details if isinstance(read.details, DatabaseDetails) else DatabaseDetails()
        yield "databases", [database_row(database, details, _status(read.details))]
        if isinstance(read.grants, list):
            yield "database_grants", database_grant_rows(database, read.grants)

    def _tell_table(self, read: TableRead) -> Iterator[tuple[str, list[Row]]]:
        table = read.table
        self.counts.tables_done += 1
        self._note_gap(read.details, "details", table.database, table)
        details = read.details if isinstance(read.details, TableDetails) else TableDetails()
        yield "tables", [table_row(table, details, _status(read.details))]
        yield "columns", column_rows(table, details)
        yield "indexes", index_rows(table, details)
        yield "table_grants", table_grant_rows(table, details)

    def _note_database(self, read: DatabaseRead) -> None:
        self._note_gap(read.details, "details", read.database.name)
        self._note_gap(read.grants, "grants", read.database.name)
        self._note_gap(read.tables, "tables", read.database.name)

    def _note_gap(self, value: Read[Any], part: Part, database: str, table: Table | None = None) -> None:
        if not isinstance(value, UnreadableError):
            return
        schema, name = (table.schema, table.name) if table else (None, None)
        gap = Gap(database, part, value.reason, schema, name, value.http_status)
        self.gaps.append(gap)
        names = ".".join(shown(each) for each in (database, schema, name) if each is not None)
        log.info("gap: %s of %s: %s: %s", part, names, value.reason, value, extra={"event": "gap", "gap": gap})

    def _refuse_nothing(self) -> None:
        """A run in which every single request failed has nothing to publish."""
        if not self.gaps or self.counts.details_fetched:
            return
        reasons = {gap.reason for gap in self.gaps}
        if reasons == {"forbidden"}:
            raise ClusterRefusedError(
                "every request was answered 403: the account may read nothing; it needs a role that belongs to admin",
                status=403,
            )
        if reasons <= {"server_error", "timeout"}:
            raise ClusterUnavailableError(
                f"every request failed ({', '.join(sorted(reasons))}); the cluster is in trouble, run it again later"
            )


def _status(value: Read[Any]) -> str:
    if value is None:
        return NOT_REQUESTED
    return value.reason if isinstance(value, UnreadableError) else FETCHED


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
