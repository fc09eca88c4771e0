"""The replies of the documented form, as they stand on the wire.

Strict about shapes; numbers may come as strings, and fields that are not known are passed over.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class DatabaseEntry(msgspec.Struct, gc=False):
    name: str
    id: Int64 | None = None


class DatabasesReply(msgspec.Struct, gc=False):
    """Servers in the native form list bare names."""

    databases: list[DatabaseEntry | str]


class DatabaseReply(msgspec.Struct, gc=False):
    database_name: str | None = None
    descriptor_id: Int64 | None = None
    size_bytes: Int64 | None = None
    table_count: Int64 | None = None
    store_ids: list[Int64] | None = None


class GrantEntry(msgspec.Struct, gc=False):
    user: str
    privileges: list[str]


class GrantsReply(msgspec.Struct, gc=False):
    grants: list[GrantEntry]


class TableEntry(msgspec.Struct, gc=False):
    name: str
    schema_name: str
    table_id: Int64 | None = None
    size_bytes: Int64 | None = None


class TablesReply(msgspec.Struct, gc=False):
    tables: list[TableEntry]


class ColumnEntry(msgspec.Struct, gc=False):
    name: str
    type: str
    nullable: bool


class IndexEntry(msgspec.Struct, gc=False):
    name: str
    columns: list[str]
    unique: bool


class TableReply(msgspec.Struct, gc=False):
    columns: list[ColumnEntry]
    indexes: list[IndexEntry]
    grants: list[GrantEntry]
    table_name: str | None = None
    table_id: Int64 | None = None
    database_name: str | None = None
    schema_name: str | None = None
    range_count: Int64 | None = None
    size_bytes: Int64 | None = None
