"""What a dialect tells of a cluster, the same whatever the server's form. What a server does not tell is None."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Database(msgspec.Struct, frozen=True):
    """A database as listed."""

    name: str
    database_id: int | None = None


class DatabaseDetails(msgspec.Struct, frozen=True):
    """What is known of one database beyond its listing. Sizes are in bytes."""

    database_id: int | None = None
    size_bytes: int | None = None
    replicated_bytes: int | None = None
    table_count: int | None = None
    store_ids: tuple[int, ...] | None = None
    stats_as_of: datetime | None = None


class Grant(msgspec.Struct, frozen=True):
    """One privilege of one grantee."""

    grantee: str
    privilege: str


class Table(msgspec.Struct, frozen=True):
    """A table as listed. `shares_name`: another schema of the database lists a table of the same name."""

    database: str
    schema: str
    name: str
    table_id: int | None = None
    size_bytes: int | None = None
    kind: str | None = None
    shares_name: bool = False


class Column(msgspec.Struct, frozen=True):
    name: str
    data_type: str
    is_nullable: bool
    is_hidden: bool | None = None


class Index(msgspec.Struct, frozen=True):
    name: str
    is_unique: bool
    column_names: tuple[str, ...]
    directions: tuple[str, ...] | None = None
    stored_columns: tuple[str, ...] | None = None


class TableDetails(msgspec.Struct, frozen=True):
    """What is known of one table beyond its listing; `size_bytes` is one copy, `replicated_bytes` all replicas."""

    table_id: int | None = None
    size_bytes: int | None = None
    replicated_bytes: int | None = None
    live_bytes: int | None = None
    range_count: int | None = None
    replica_count: int | None = None
    store_ids: tuple[int, ...] | None = None
    stats_as_of: datetime | None = None
    columns: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()
    grants: tuple[Grant, ...] = ()


class Parts(msgspec.Struct, frozen=True):
    """What has to be asked for the streams of a run, beyond the list of databases."""

    database_details: bool
    database_grants: bool
    tables: bool
    table_details: bool
