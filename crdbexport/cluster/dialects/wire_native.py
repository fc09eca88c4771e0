"""The replies of the native form, as they stand on the wire.

Go leaves out zeros, false and empty strings, and writes an empty list of objects as null: what is absent here means
just that. Measures are the exception: old servers do not tell them, so that an absent one may be unknown.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class DatabaseEntry(msgspec.Struct, gc=False):
    """A database as the documented form lists it."""

    name: str


class DatabasesReply(msgspec.Struct, gc=False):
    databases: list[str | DatabaseEntry] | None = None
    next: Int64 | None = None


class Nothing(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The empty list of databases; what holds anything else is no such list."""

    databases: None = None
    next: Int64 | None = None


class DatabaseReply(msgspec.Struct, gc=False):
    descriptor_id: Int64


class GrantEntry(msgspec.Struct, gc=False):
    user: str = ""
    privileges: list[str] | None = None


class GrantsReply(msgspec.Struct, gc=False):
    grants: list[GrantEntry] | None
    next: Int64 | None = None


class TablesReply(msgspec.Struct, gc=False):
    table_names: list[str] | None = None
    next: Int64 | None = None


class ColumnEntry(msgspec.Struct, gc=False):
    """What is no field here may hold users' data: `wire_on_request` makes a field of what is asked for."""

    name: str
    type: str = ""
    nullable: bool = False
    hidden: bool = False
    default_value: ClassVar[str | None] = None
    generation_expression: ClassVar[str | None] = None


class IndexRow(msgspec.Struct, gc=False):
    """One column of one index."""

    name: str
    column: str
    seq: Int64 = 0
    unique: bool = False
    direction: str = ""
    storing: bool = False
    implicit: bool = False


class TableReply(msgspec.Struct, gc=False):
    """What is no field here may hold users' data: `wire_on_request` makes a field of what is asked for."""

    descriptor_id: Int64
    grants: list[GrantEntry] | None
    columns: list[ColumnEntry] | None
    indexes: list[IndexRow] | None
    range_count: Int64 | None = None
    data_total_bytes: Int64 | None = None
    data_live_bytes: Int64 | None = None
    create_table_statement: ClassVar[str | None] = None
    configure_zone_statement: ClassVar[str | None] = None
    zone_config: ClassVar[dict[str, Any] | None] = None


class PaginationInfo(msgspec.Struct, gc=False):
    total_results: Int64 = 0


class DatabaseMetadata(msgspec.Struct, gc=False):
    db_id: Int64
    db_name: str
    size_bytes: Int64 = 0
    table_count: Int64 = 0
    store_ids: list[Int64] | None = None
    last_updated: datetime | None = None


class DatabaseMetadataReply(msgspec.Struct, gc=False):
    results: list[DatabaseMetadata] | None
    pagination_info: PaginationInfo = msgspec.field(default_factory=PaginationInfo)


class TableMetadata(msgspec.Struct, gc=False):
    table_id: Int64
    schema_name: str
    table_name: str
    replication_size_bytes: Int64 = 0
    range_count: Int64 = 0
    total_live_data_bytes: Int64 = 0
    total_data_bytes: Int64 = 0
    store_ids: list[Int64] | None = None
    last_updated: datetime | None = None
    replica_count: Int64 | None = None


class TableMetadataReply(msgspec.Struct, gc=False):
    results: list[TableMetadata] | None
    pagination_info: PaginationInfo = msgspec.field(default_factory=PaginationInfo)


class JobTriggerReply(msgspec.Struct, gc=False):
    job_triggered: bool
    message: str


class JobStatusReply(msgspec.Struct, gc=False):
    """`progress` runs from 0 to 1; while nothing runs it is that of the last time."""

    current_status: str
    progress: float = 0.0


class IdGrant(msgspec.Struct, gc=False):
    grantee: str
    privilege: str


class IdGrantsReply(msgspec.Struct, gc=False):
    """Grants asked for by id; the names say which object they are of."""

    results: list[IdGrant] | None
    name: str | None = None
    database_name: str | None = None
    schema_name: str | None = None
    table_name: str | None = None
