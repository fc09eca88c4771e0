"""The objects of the simulated cluster, as plain values. Ids are numbers; the documented API sends strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["table", "view", "materialized view"]


@dataclass(frozen=True)
class Column:
    """A column; a hidden one was added by the cluster."""

    name: str
    type: str
    nullable: bool
    hidden: bool = False


@dataclass(frozen=True)
class Index:
    """An index: its key columns with a direction (`ASC`, `DESC`) each, and the columns it merely stores.

    That a primary index stores every column of its table is not said here.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool
    directions: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grant:
    """What one role may do with one object."""

    user: str
    privileges: tuple[str, ...]


@dataclass(frozen=True)
class Database:
    """A database's details; its size is one copy of the data, and views do not count as tables."""

    name: str
    id: int
    size_bytes: int
    table_count: int
    store_ids: tuple[int, ...]


@dataclass(frozen=True)
class ListedTable:
    """A table or view as its database's listing tells it."""

    name: str
    schema_name: str
    table_id: int
    size_bytes: int
    kind: Kind = "table"


@dataclass(frozen=True)
class TableDetails:
    """Everything that is told of one table or view.

    `size_bytes` and `live_bytes` measure one copy before compression, `replicated_bytes` all copies on disk.
    """

    table_name: str
    table_id: int
    database_name: str
    schema_name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    grants: tuple[Grant, ...]
    range_count: int
    size_bytes: int
    kind: Kind
    live_bytes: int
    replicated_bytes: int
    replica_count: int
    store_ids: tuple[int, ...]
