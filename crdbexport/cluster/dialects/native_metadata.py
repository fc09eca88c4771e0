"""`database_metadata/` and `table_metadata/`, of v24.3 and later: measures out of a cache, in large pages.

What is cached may be old, or may never have been measured: a row without the time of its measuring says nothing, and
its zeros are no zeros. Sizes over all replicas are never told as sizes of one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol, TypeVar

import msgspec

from crdbexport.cluster.dialects.wire_native import (
    DatabaseMetadata,
    DatabaseMetadataReply,
    PaginationInfo,
    TableMetadata,
    TableMetadataReply,
)
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.model import DatabaseDetails, Table, TableStats
from crdbexport.cluster.session import Session
from crdbexport.errors import PartlyReadError

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

DATABASES_A_PAGE = 1000
TABLES_A_PAGE = 2000


class _Page(Protocol[R_co]):
    @property
    def results(self) -> Sequence[R_co] | None: ...

    @property
    def pagination_info(self) -> PaginationInfo: ...


async def database_metadata(session: Session) -> dict[str, DatabaseMetadata]:
    """What is cached of each database that the account may connect to, by name."""
    decode = msgspec.json.Decoder(DatabaseMetadataReply, strict=False).decode
    rows = await _every_row(session, "database_metadata", decode, lambda row: row.db_id, DATABASES_A_PAGE)
    return {row.db_name: row for row in rows}


async def table_metadata(session: Session, database_id: int) -> dict[tuple[str, str], TableMetadata]:
    """What is cached of each table of the database, by schema and name; views are not among them."""
    decode = msgspec.json.Decoder(TableMetadataReply, strict=False).decode
    try:
        rows = await _every_row(session, "table_metadata", decode, _table_id, TABLES_A_PAGE, dbId=database_id)
    except PartlyReadError as error:
        error.value = _by_name(error.value)
        raise
    return _by_name(rows)


def _by_name(rows: list[TableMetadata]) -> dict[tuple[str, str], TableMetadata]:
    """Dropped tables stay in the cache for a while: of two by one name, the younger is there."""
    return {(row.schema_name, row.table_name): row for row in sorted(rows, key=_table_id)}


def _table_id(row: TableMetadata) -> int:
    return row.table_id


async def _every_row(
    session: Session, path: str, decode: Callable[[bytes], _Page[R]], key: Callable[[R], int], size: int, **query: int
) -> list[R]:
    rows: dict[int, R] = {}
    for page_number in count(1):
        asked = (*query.items(), ("pageNum", page_number), ("pageSize", size))
        endpoint = Endpoint("GET", (path,), trailing_slash=True, query=asked)
        page = await session.get(endpoint, decode)
        known = len(rows)
        rows.update((key(row), row) for row in page.results or ())
        # The total is counted on the rows of the page: past the end there is none.
        if not page.results or known + len(page.results) >= page.pagination_info.total_results:
            break
        if len(rows) == known:
            raise PartlyReadError(
                f"{endpoint} answers page {page_number} with rows of earlier ones",
                list(rows.values()),
                reason="pagination_loop",
            )
    return list(rows.values())


def database_details_of(row: DatabaseMetadata) -> DatabaseDetails:
    """What the row tells: the id always, measures where they were taken."""
    if row.last_updated is None:
        return DatabaseDetails(database_id=row.db_id)
    return DatabaseDetails(
        database_id=row.db_id,
        replicated_bytes=row.size_bytes,
        table_count=row.table_count,
        store_ids=tuple(row.store_ids or ()),
        stats_as_of=row.last_updated,
    )


def measured(table: Table, row: TableMetadata) -> Table:
    """The listed table with what the row tells of it."""
    table = msgspec.structs.replace(table, table_id=row.table_id, kind="table")
    if row.last_updated is None:
        return table
    stats = TableStats(
        replicated_bytes=row.replication_size_bytes,
        live_bytes=row.total_live_data_bytes,
        range_count=row.range_count,
        replica_count=row.replica_count,
        store_ids=tuple(row.store_ids or ()),
        stats_as_of=row.last_updated,
    )
    return msgspec.structs.replace(table, size_bytes=row.total_data_bytes, stats=stats)
