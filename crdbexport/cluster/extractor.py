"""Walks a cluster: databases in order, each one's tables in order, their parts in the server's own order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from crdbexport.cluster.dialects import Dialect
from crdbexport.cluster.identities import Identities
from crdbexport.cluster.model import Database, DatabaseDetails, Table, TableDetails
from crdbexport.cluster.reads import (
    DatabaseRead,
    Read,
    TableRead,
    in_name_order,
    outcome_of,
    status_of,
    unsettled,
    value_of,
)
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
    PartlyReadError,
    UnexpectedServerError,
    UnreadableError,
    shown,
)
from crdbexport.records import Gap, Part
from crdbexport.selection import Selection

T = TypeVar("T")
Seen: TypeAlias = Callable[[DatabaseRead, TableRead | None], None]

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


@dataclass
class Extractor:
    """Reads the selected databases through a dialect and tells rows, stream by stream, in a fixed order.

    A part that cannot be read becomes a gap; its object keeps its record. A table that deserves a second look gets it
    after all others, and is told then. `counts` and `gaps` are complete once `rows` has ended.
    """

    session: Session
    dialect: Dialect
    selection: Selection
    streams: Collection[str]
    concurrency: int
    counts: WalkCounts = field(default_factory=WalkCounts)
    gaps: list[Gap] = field(default_factory=list)
    include: Collection[str] = ()

    def __post_init__(self) -> None:
        self._parts = self.dialect.parts(self.streams, self.include)
        if untold := sorted(set(self.include) - self._parts.include):
            names = ", ".join(untold)
            log.warning("--include: null, for no server of this form tells %s", names, extra={"event": "field_untold"})
        at_once = self.dialect.details_at_once
        self._details_turn = asyncio.Semaphore(min(at_once, self.concurrency)) if at_once else nullcontext()
        self._identities = Identities()
        self._later: list[Table] = []
        self._partly = False

    async def rows(self) -> AsyncGenerator[tuple[str, list[Row]], None]:
        """Rows of one object at a time, with the stream that they belong to."""
        window = self.concurrency * TABLES_AHEAD_PER_CONNECTION
        async with (
            aclosing(self._objects()) as objects,
            aclosing(in_order(objects, self._read, window=window)) as reads,
        ):
            async for each in reads:
                for told in self._told(each):
                    yield told
        async with aclosing(in_order(_each(self._later), self._read_again, window=window)) as reads_again:
            async for table in reads_again:
                for told in self._wanted(self._tell_table(table)):
                    yield told
        self._refuse_nothing()

    async def probe(self, seen: Seen = lambda read, table: None) -> None:
        """Read every database's own parts and one table of each, for the sake of `counts`, `gaps` and `seen` alone."""
        databases = _each(await self.selected())
        async with aclosing(in_order(databases, self._sample, window=DATABASES_AHEAD)) as samples:
            async for read, table in samples:
                self._note_database(read)
                if table is not None:
                    self._note(table.details, "details", table.table.database, table.table)
                seen(read, table)

    async def _sample(self, database: Database) -> tuple[DatabaseRead, TableRead | None]:
        read = await self.read_database(database)
        tables = value_of(read.tables) or []
        if not tables or not self._parts.table_details:
            return read, None
        sample = TableRead(tables[0], await self.read_table(tables[0]))
        return read, await self._read_again(tables[0]) if unsettled(sample) else sample

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
                for table in value_of(read.tables) or ():
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
        return await self._part(self._parts.table_details, self._details(table))

    async def _read_again(self, table: Table) -> TableRead:
        return TableRead(table, await outcome_of(self._details(table)))

    async def _details(self, table: Table) -> TableDetails:
        async with self._details_turn:
            return await self.dialect.table_details(self.session, table, self._parts)

    async def _tables(self, database: Database) -> list[Table]:
        try:
            tables = in_name_order(await self.dialect.tables(self.session, database))
            self.counts.tables_listed += len(tables)
        except PartlyReadError as error:
            error.value = in_name_order(error.value)
            self.counts.tables_listed += len(error.value)
            raise
        return tables

    async def _part(self, wanted: bool, reading: Coroutine[Any, Any, T]) -> Read[T]:
        if not wanted:
            reading.close()
            return None
        self.counts.details_wanted += 1
        return await outcome_of(reading)

    def _told(self, read: DatabaseRead | TableRead) -> Iterator[tuple[str, list[Row]]]:
        """What there is to tell of an object now."""
        if isinstance(read, DatabaseRead):
            self._identities.enter(read.database.name)
            return self._wanted(self._tell_database(read))
        if unsettled(read):
            self._identities.keep(read.table.database)
            self._later.append(read.table)
            return iter(())
        return self._wanted(self._tell_table(read))

    def _wanted(self, told: Iterable[tuple[str, list[Row]]]) -> Iterator[tuple[str, list[Row]]]:
        return ((stream, rows) for stream, rows in told if stream in self.streams and rows)

    def _tell_database(self, read: DatabaseRead) -> Iterator[tuple[str, list[Row]]]:
        database = read.database
        self.counts.databases_done += 1
        self._note_database(read)
        yield (
            "databases",
            [database_row(database, value_of(read.details) or DatabaseDetails(), status_of(read.details))],
        )
        yield "database_grants", database_grant_rows(database, value_of(read.grants) or [])

    def _tell_table(self, read: TableRead) -> Iterator[tuple[str, list[Row]]]:
        table, outcome = read.table, self._identities.checked(read.table, read.details)
        self.counts.tables_done += 1
        self._note(outcome, "details", table.database, table)
        details = value_of(outcome) or TableDetails()
        yield "tables", [table_row(table, details, status_of(outcome))]
        yield "columns", column_rows(table, details)
        yield "indexes", index_rows(table, details)
        yield "table_grants", table_grant_rows(table, details)

    def _note_database(self, read: DatabaseRead) -> None:
        self._note(read.details, "details", read.database.name)
        self._note(read.grants, "grants", read.database.name)
        self._note(read.tables, "tables", read.database.name)

    def _note(self, value: Read[Any], part: Part, database: str, table: Table | None = None) -> None:
        """Count a part that was asked for: as read, or as a gap."""
        if not isinstance(value, UnreadableError):
            self.counts.details_fetched += value is not None
            return
        self._partly = self._partly or isinstance(value, PartlyReadError)
        schema, name = (table.schema, table.name) if table else (None, None)
        gap = Gap(database, part, value.reason, schema, name, value.http_status)
        self.gaps.append(gap)
        names = ".".join(shown(each) for each in (database, schema, name) if each is not None)
        log.info("gap: %s of %s: %s: %s", part, names, value.reason, value, extra={"event": "gap", "gap": gap})

    def _refuse_nothing(self) -> None:
        """A run in which every single request failed has nothing to publish."""
        if not self.gaps or self.counts.details_fetched or self._partly:
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
        # One database may be dropped meanwhile. That all are gone, or none is as it should be, is not believed.
        if reasons <= {"not_found", "bad_body"} and (reasons != {"not_found"} or self.counts.databases_listed > 1):
            raise UnexpectedServerError(
                f"nothing below the list of databases could be read ({', '.join(sorted(reasons))}); does something "
                "before the cluster let only some paths through?"
            )


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
