"""The documented form: one JSON object an endpoint, names in the path, sizes in the details."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import Any, TypeVar

import msgspec

from crdbexport.cluster.dialects import OtherFormError
from crdbexport.cluster.dialects.wire_documented import (
    DatabaseEntry,
    DatabaseReply,
    DatabasesReply,
    GrantEntry,
    GrantsReply,
    TableReply,
    TablesReply,
)
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.model import (
    EVERYTHING,
    OF_TABLES,
    Column,
    Database,
    DatabaseDetails,
    Grant,
    Index,
    Parts,
    Table,
    TableDetails,
)
from crdbexport.cluster.privileges import DOCUMENTED
from crdbexport.cluster.replies import fatal
from crdbexport.cluster.session import Session
from crdbexport.errors import UnreadableError, shown

T = TypeVar("T")

# Servers and clients alike take these segments for a walk through the path, encoded or not; an empty one asks for the
# listing instead.
UNADDRESSABLE = frozenset({"", ".", ".."})
LIST = Endpoint("GET", ("databases",))
DATABASES = msgspec.json.Decoder(DatabasesReply, strict=False)
NO_LIST = 'this is no list of objects under "databases"; check --url'
OTHER_FORM = "the server answers in the native form; leave --dialect out"


class DocumentedDialect:
    """Reads servers that answer as the API's public page describes it."""

    name = "documented"
    details_at_once: int | None = None
    privileges = DOCUMENTED

    def __init__(self, listed: list[Database] | None = None) -> None:
        """`listed` is the list of databases where it has been asked for already."""
        self._listed = listed

    def parts(self, streams: Collection[str], include: Collection[str] = ()) -> Parts:
        # The list of tables has no range count, so that even the stream `tables` alone needs the details. No reply
        # tells a field that is on request.
        return Parts.of(streams, (), detailed=OF_TABLES)

    def requests(self, parts: Parts, databases: int, tables: int) -> int:
        per_database = parts.database_details + parts.database_grants + parts.tables
        return 1 + databases * per_database + tables * parts.table_details

    async def databases(self, session: Session) -> list[Database]:
        if self._listed is not None:
            return self._listed
        try:
            return await session.get(LIST, databases_of)
        except UnreadableError as error:
            native = isinstance(error, OtherFormError) or error.reason == "unaddressable"
            raise fatal(error, hint=OTHER_FORM if native else NO_LIST) from error

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails:
        reply = await _get(session, DatabaseReply, "databases", database.name)
        _same("database_name", database.name, reply.database_name)
        _same("descriptor_id", database.database_id, reply.descriptor_id)
        return DatabaseDetails(
            database_id=reply.descriptor_id,
            size_bytes=reply.size_bytes,
            table_count=reply.table_count,
            store_ids=None if reply.store_ids is None else tuple(reply.store_ids),
        )

    async def database_grants(self, session: Session, database: Database) -> list[Grant]:
        reply = await _get(session, GrantsReply, "databases", database.name, "grants")
        return _grants(reply.grants)

    async def tables(self, session: Session, database: Database) -> list[Table]:
        reply = await _get(session, TablesReply, "databases", database.name, "tables")
        schemas = Counter(name for _, name in {(entry.schema_name, entry.name) for entry in reply.tables})
        return [
            Table(
                database=database.name,
                schema=entry.schema_name,
                name=entry.name,
                table_id=entry.table_id,
                size_bytes=entry.size_bytes,
                shares_name=schemas[entry.name] > 1,
            )
            for entry in reply.tables
        ]

    async def table_details(self, session: Session, table: Table, parts: Parts = EVERYTHING) -> TableDetails:
        reply = await _get(session, TableReply, "databases", table.database, "tables", table.name)
        _same_table(table, reply)
        return TableDetails(
            table_id=reply.table_id,
            size_bytes=reply.size_bytes,
            range_count=reply.range_count,
            columns=tuple(Column(each.name, each.type, each.nullable) for each in reply.columns),
            indexes=tuple(Index(each.name, each.unique, tuple(each.columns)) for each in reply.indexes),
            grants=tuple(_grants(reply.grants)),
        )


def databases_of(body: bytes) -> list[Database]:
    """The databases of a list of objects; raises `OtherFormError` for a list of names."""
    listed = DATABASES.decode(body).databases
    objects = [entry for entry in listed if isinstance(entry, DatabaseEntry)]
    if len(objects) < len(listed):
        raise OtherFormError(f"{LIST} answered a list of names, not of objects")
    return [Database(entry.name, entry.id) for entry in objects]


async def _get(session: Session, shape: type[T], *segments: str) -> T:
    for name in segments:
        if name in UNADDRESSABLE:
            raise UnreadableError(f"no URL can name {shown(name)}", reason="unaddressable")
    kind: Any = shape
    decode: Callable[[bytes], T] = _decoder(kind).decode
    return await session.get(Endpoint("GET", segments), decode)


@functools.cache
def _decoder(shape: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape, strict=False)


def _grants(entries: list[GrantEntry]) -> list[Grant]:
    return [Grant(entry.user, privilege) for entry in entries for privilege in entry.privileges]


def _same_table(table: Table, reply: TableReply) -> None:
    """The URL carries no schema, so the reply may tell of another schema's table of the same name."""
    _same("database_name", table.database, reply.database_name)
    _same("schema_name", table.schema, reply.schema_name)
    _same("table_name", table.name, reply.table_name)
    _same("table_id", table.table_id, reply.table_id)
    proven = reply.schema_name is not None or (table.table_id is not None and reply.table_id is not None)
    if table.shares_name and not proven:
        raise UnreadableError(
            f"the reply does not say which of the tables named {shown(table.name)} it tells of",
            reason="ambiguous",
        )


def _same(field: str, asked: Any, answered: Any) -> None:
    if asked is not None and answered is not None and asked != answered:
        raise UnreadableError(
            f"asked for {field} {shown(str(asked))}, the reply tells of {shown(str(answered))}",
            reason="ambiguous",
        )
