"""The native form: what real servers have answered since v21.2, asked by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from crdbexport.cluster.dialects import OtherFormError
from crdbexport.cluster.dialects.native_details import details_of, grants_of
from crdbexport.cluster.dialects.native_names import database_segment, parse_listed, table_segment
from crdbexport.cluster.dialects.native_pages import Page, whole_list
from crdbexport.cluster.dialects.wire_native import (
    DatabaseReply,
    DatabasesReply,
    GrantsReply,
    Nothing,
    TablesReply,
)
from crdbexport.cluster.dialects.wire_on_request import table_reply
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.model import (
    EVERYTHING,
    OF_TABLES,
    Database,
    DatabaseDetails,
    Grant,
    Parts,
    Table,
    TableDetails,
)
from crdbexport.cluster.privileges import NATIVE_BY_NAME
from crdbexport.cluster.replies import fatal
from crdbexport.cluster.session import Session
from crdbexport.errors import LookAgainError, PartlyReadError, UnreadableError, shown

T = TypeVar("T")

# One table's details cost the server a dozen statements, some of which look at every table of the cluster.
DETAILS_AT_ONCE = 2
FAILED = frozenset({500})

OTHER_FORM = "the server answers in the documented form; leave --dialect out"
TOO_OLD = "the server has no list of databases: it is too old (v21.1), or --url has a wrong base path"
NO_LIST = 'this is no list of names under "databases"; check --url'
HINTS = {"unaddressable": TOO_OLD, "pagination_loop": "see what stands between here and the node"}


class NativeDialect:
    """Reads servers that answer as CockroachDB's own do, with what they are asked by name alone.

    Only names that lead to their own object are asked for: the server parses them as SQL and would answer with another
    table's details. Create statements, defaults, generation expressions and zones are decoded only where asked for.
    """

    name = "native"
    details_at_once: int | None = DETAILS_AT_ONCE
    privileges = NATIVE_BY_NAME

    def __init__(self, listed: list[str] | None = None) -> None:
        """`listed` is the list of databases where it has been asked for already."""
        self._listed = listed

    def parts(self, streams: Collection[str], include: Collection[str] = ()) -> Parts:
        # The list of tables has names alone, so that even the stream `tables` needs the details.
        return Parts.of(streams, include, detailed=OF_TABLES)

    def requests(self, parts: Parts, databases: int, tables: int) -> int:
        per_database = parts.database_details + parts.database_grants + parts.tables
        return 2 + databases * per_database + tables * parts.table_details

    async def databases(self, session: Session) -> list[Database]:
        names = await listed_databases(session) if self._listed is None else self._listed
        return [Database(name) for name in names]

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails:
        endpoint, decode = _endpoint("databases", _segment(database.name)), _decoder(DatabaseReply)
        try:
            reply = await session.get(endpoint, decode, look_again_at=FAILED)
        except LookAgainError as error:
            # A database that is not there is answered 500 too.
            if database.name not in await _database_names(session):
                raise UnreadableError(
                    f"{error}, and the database is no longer listed", reason="not_found", http_status=error.http_status
                ) from error
            reply = await session.get(endpoint, decode)
        return DatabaseDetails(database_id=reply.descriptor_id)

    async def database_grants(self, session: Session, database: Database) -> list[Grant]:
        return await whole_list(session, ("databases", _segment(database.name), "grants"), _grants_page)

    async def tables(self, session: Session, database: Database) -> list[Table]:
        segments = ("databases", _segment(database.name), "tables")
        try:
            names = await whole_list(session, segments, _tables_page)
        except PartlyReadError as error:
            error.value = _tables(database.name, error.value)
            raise
        return _tables(database.name, names)

    async def table_details(self, session: Session, table: Table, parts: Parts = EVERYTHING) -> TableDetails:
        if table.address is None:
            raise UnreadableError(f"no request by name leads to {shown(table.name)}", reason="unaddressable")
        endpoint = _endpoint("databases", _segment(table.database), "tables", table.address)
        try:
            reply = await session.get(endpoint, _decoder(table_reply(parts.include)), look_again_at=FAILED)
        except LookAgainError as error:
            reason = "view" if table.maybe_view else error.reason
            raise LookAgainError(str(error), reason=reason, http_status=error.http_status) from error
        return _of_this(table, details_of(reply))


async def listed_databases(session: Session) -> list[str]:
    """The names of all databases that the account sees; raises what ends a run."""
    try:
        return await _database_names(session)
    except OtherFormError as error:
        raise fatal(error, hint=OTHER_FORM) from error
    except UnreadableError as error:
        raise fatal(error, hint=HINTS.get(error.reason, NO_LIST)) from error


async def _database_names(session: Session) -> list[str]:
    return await whole_list(session, ("databases",), _databases_page)


def _databases_page(body: bytes) -> Page[str]:
    reply = _DATABASES.decode(body)
    if reply.databases is None:
        _NOTHING.decode(body)
    names = [each for each in reply.databases or () if isinstance(each, str)]
    if len(names) < len(reply.databases or ()):
        raise OtherFormError("GET databases/ answered a list of objects, not of names")
    return Page(names, reply.next)


def _grants_page(body: bytes) -> Page[Grant]:
    reply = _GRANTS.decode(body)
    return Page(grants_of(reply.grants or ()), reply.next)


def _tables_page(body: bytes) -> Page[str]:
    reply = _TABLES.decode(body)
    return Page(reply.table_names or (), reply.next)


def _tables(database: str, names: list[str]) -> list[Table]:
    tables = []
    trouble: ValueError | None = None
    for name in names:
        try:
            listed = parse_listed(name)
        except ValueError as error:
            trouble = error
        else:
            tables.append(Table(database, listed.schema, listed.table, address=table_segment(listed)))
    if trouble:
        where = f"the list of tables of {shown(database)}"
        raise PartlyReadError(f"{where}: {trouble}", tables, reason="bad_body", http_status=200)
    return tables


def _of_this(table: Table, details: TableDetails) -> TableDetails:
    """The details, unless their id is another table's."""
    if table.table_id in (None, details.table_id):
        return details
    raise UnreadableError(
        f"asked for {shown(table.name)} with id {table.table_id}, the reply tells of id {details.table_id}",
        reason="ambiguous",
    )


def _segment(database: str) -> str:
    segment = database_segment(database)
    if segment is None:
        raise UnreadableError(f"the server has no route for {shown(database)}", reason="unaddressable")
    return segment


def _endpoint(*segments: str) -> Endpoint:
    return Endpoint("GET", segments, trailing_slash=True)


def _decoder(shape: type[T]) -> Any:
    return msgspec.json.Decoder(shape, strict=False).decode


_DATABASES = msgspec.json.Decoder(DatabasesReply, strict=False)
_NOTHING = msgspec.json.Decoder(Nothing)
_GRANTS = msgspec.json.Decoder(GrantsReply, strict=False)
_TABLES = msgspec.json.Decoder(TablesReply, strict=False)
