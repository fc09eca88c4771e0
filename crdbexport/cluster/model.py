"""What a dialect tells of a cluster, the same whatever the server's form. What a server does not tell is None."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from crdbexport.records import STREAMS

OF_TABLES = frozenset(STREAMS) - {"databases", "database_grants"}


class Database(msgspec.Struct, frozen=True, gc=False):
    """A database as listed."""

    name: str
    database_id: int | None = None


class DatabaseDetails(msgspec.Struct, frozen=True, gc=False):
    """What is known of one database beyond its listing. Sizes are in bytes."""

    database_id: int | None = None
    size_bytes: int | None = None
    replicated_bytes: int | None = None
    table_count: int | None = None
    store_ids: tuple[int, ...] | None = None
    stats_as_of: datetime | None = None


class Grant(msgspec.Struct, frozen=True, gc=False):
    """One privilege of one grantee."""

    grantee: str
    privilege: str


class TableStats(msgspec.Struct, frozen=True, gc=False):
    """Measures that a server keeps of a table; `replicated_bytes` counts all replicas, `live_bytes` one copy."""

    replicated_bytes: int | None = None
    live_bytes: int | None = None
    range_count: int | None = None
    replica_count: int | None = None
    store_ids: tuple[int, ...] | None = None
    stats_as_of: datetime | None = None


class Table(msgspec.Struct, frozen=True, gc=False):
    """A table as listed.

    `shares_name`: another schema of the database lists a table of the same name. `address`: what names it in a
    request, where that is not its name; None also where nothing does. `maybe_view`: listed, but not among the tables.
    """

    database: str
    schema: str
    name: str
    table_id: int | None = None
    size_bytes: int | None = None
    kind: str | None = None
    shares_name: bool = False
    stats: TableStats = TableStats()
    address: str | None = None
    maybe_view: bool = False


class Column(msgspec.Struct, frozen=True, gc=False):
    name: str
    data_type: str
    is_nullable: bool
    is_hidden: bool | None = None
    column_default: str | None = None
    generation_expression: str | None = None


class Index(msgspec.Struct, frozen=True, gc=False):
    name: str
    is_unique: bool
    column_names: tuple[str, ...]
    directions: tuple[str, ...] | None = None
    stored_columns: tuple[str, ...] | None = None


class TableDetails(msgspec.Struct, frozen=True, gc=False):
    """What is known of one table beyond its listing; sizes are of one copy. `zone_config` is JSON."""

    table_id: int | None = None
    size_bytes: int | None = None
    live_bytes: int | None = None
    range_count: int | None = None
    columns: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()
    grants: tuple[Grant, ...] = ()
    create_statement: str | None = None
    configure_zone_statement: str | None = None
    zone_config: str | None = None


class Parts(msgspec.Struct, frozen=True, gc=False):
    """What has to be asked for the streams of a run, beyond the list of databases.

    `table_columns` and `table_grants` say what the details of a table are wanted for, where a server could tell one
    without the other. `include` names the fields that may hold users' data and are wanted all the same; only the
    details tell them, and no other field of that kind is decoded.
    """

    database_details: bool
    database_grants: bool
    tables: bool
    table_details: bool
    table_columns: bool = True
    table_grants: bool = True
    include: frozenset[str] = frozenset()

    @classmethod
    def of(cls, streams: Collection[str], include: Collection[str], *, detailed: Collection[str]) -> Parts:
        """The parts for these streams; those of `detailed` need the details of every table, as does `include`."""
        return cls(
            database_details="databases" in streams,
            database_grants="database_grants" in streams,
            tables=not OF_TABLES.isdisjoint(streams),
            table_details=bool(include) or not set(detailed).isdisjoint(streams),
            include=frozenset(include),
        )


EVERYTHING = Parts(True, True, True, True)
