"""The native form of v24.3 and later: sizes and counts in bulk, grants by id, details only where they are needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from crdbexport.cluster.dialects.native import FAILED, NativeDialect
from crdbexport.cluster.dialects.native_metadata import database_details_of, measured, table_metadata
from crdbexport.cluster.dialects.native_names import database_segment
from crdbexport.cluster.dialects.wire_native import DatabaseMetadata, IdGrantsReply, TableMetadata
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.model import EVERYTHING, Database, DatabaseDetails, Grant, Parts, Table, TableDetails
from crdbexport.cluster.privileges import NATIVE_BY_ID
from crdbexport.cluster.reads import outcome_of, value_of
from crdbexport.cluster.session import Session
from crdbexport.errors import PartlyReadError, UnreadableError, shown

COLUMN_STREAMS = frozenset({"columns", "indexes"})
GRANTS = msgspec.json.Decoder(IdGrantsReply, strict=False)


class NativeByIdDialect(NativeDialect):
    """Reads servers that have the metadata endpoints as well; names that no request can carry have ids there.

    The metadata leave out what the account may not connect to; such databases are asked for by name.
    """

    privileges = NATIVE_BY_ID

    def __init__(self, listed: list[str] | None, databases: Mapping[str, DatabaseMetadata]) -> None:
        super().__init__(listed)
        self._databases = databases
        # In a cache that was never filled no table is listed, which says nothing of it.
        self._filled = any(row.last_updated for row in databases.values())

    def parts(self, streams: Collection[str], include: Collection[str] = ()) -> Parts:
        parts = Parts.of(streams, include, detailed=COLUMN_STREAMS | {"table_grants"})
        columns, grants = not COLUMN_STREAMS.isdisjoint(streams), "table_grants" in streams
        return msgspec.structs.replace(parts, table_columns=columns, table_grants=grants)

    def requests(self, parts: Parts, databases: int, tables: int) -> int:
        per_database = parts.database_grants + 2 * parts.tables
        return 3 + databases * per_database + tables * parts.table_details

    async def databases(self, session: Session) -> list[Database]:
        listed = await super().databases(session)
        ids = {name: row.db_id for name, row in self._databases.items()}
        return [Database(each.name, ids.get(each.name)) for each in listed]

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails:
        row = self._databases.get(database.name)
        return database_details_of(row) if row else await super().database_details(session, database)

    async def database_grants(self, session: Session, database: Database) -> list[Grant]:
        if database_segment(database.name) or database.database_id is None:
            return await super().database_grants(session, database)
        reply = await session.get(_grants_of("databases", database.database_id), GRANTS.decode)
        _same(database.name, reply.name)
        return _grants(reply)

    async def tables(self, session: Session, database: Database) -> list[Table]:
        """The listed tables with what the metadata tell of them; those of the metadata where no list can be had."""
        listing = await outcome_of(super().tables(session, database))
        listed = value_of(listing)
        unreadable = isinstance(listing, UnreadableError) and listing.reason != "unaddressable"
        if database.database_id is None or (listed is None and unreadable):
            return _whole(listing)
        metadata = await outcome_of(table_metadata(session, database.database_id))
        rows = value_of(metadata) or {}
        if listed is None:
            # Nothing tells which of them have been dropped, nor which views there are.
            listed = [Table(database.name, schema, name) for schema, name in rows]
        maybe_view = self._filled and not isinstance(metadata, UnreadableError)
        joined = [_joined(table, rows, maybe_view=maybe_view) for table in listed]
        for part in (listing, metadata):
            if isinstance(part, UnreadableError):
                raise PartlyReadError(str(part), joined, reason=part.reason, http_status=part.http_status) from part
        return joined

    async def table_details(self, session: Session, table: Table, parts: Parts = EVERYTHING) -> TableDetails:
        by_id = parts.table_grants and table.table_id is not None
        if by_id and not (parts.table_columns or parts.include):
            return await self._grants_alone(session, table)
        try:
            details = await super().table_details(session, table, parts)
        except UnreadableError as error:
            if not by_id or error.reason != "unaddressable":
                raise
            alone = await self._grants_alone(session, table)
            raise PartlyReadError(str(error), alone, reason=error.reason) from error
        if table.stats.stats_as_of is None:
            return details
        # The measures of one record are of one time.
        return msgspec.structs.replace(details, size_bytes=None, live_bytes=None, range_count=None)

    async def _grants_alone(self, session: Session, table: Table) -> TableDetails:
        assert table.table_id is not None  # noqa: S101 (those who call have looked)
        reply = await session.get(_grants_of("tables", table.table_id), GRANTS.decode, look_again_at=FAILED)
        names = (reply.database_name, reply.schema_name, reply.table_name)
        for asked, answered in zip((table.database, table.schema, table.name), names, strict=True):
            _same(asked, answered)
        return TableDetails(table_id=table.table_id, grants=tuple(_grants(reply)))


def _joined(table: Table, rows: Mapping[tuple[str, str], TableMetadata], *, maybe_view: bool) -> Table:
    row = rows.get((table.schema, table.name))
    return measured(table, row) if row else msgspec.structs.replace(table, maybe_view=maybe_view)


def _whole(listing: list[Table] | UnreadableError) -> list[Table]:
    if isinstance(listing, UnreadableError):
        raise listing
    return listing


def _grants_of(kind: str, descriptor_id: int) -> Endpoint:
    return Endpoint("GET", ("grants", kind, str(descriptor_id)), trailing_slash=True, like=f"grants of a {kind}")


def _grants(reply: IdGrantsReply) -> list[Grant]:
    return list(dict.fromkeys(Grant(each.grantee, each.privilege) for each in reply.results or ()))


def _same(asked: str, answered: str | None) -> None:
    """An id may have been given anew, or the cache may be older than a rename."""
    if answered is not None and asked != answered:
        raise UnreadableError(
            f"asked for the grants of {shown(asked)}, the reply tells of {shown(answered)}", reason="ambiguous"
        )
