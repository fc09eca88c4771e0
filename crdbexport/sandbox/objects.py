"""The objects of the simulated cluster, as plain values. Ids are numbers; the API sends strings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column as the API tells it."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class Index:
    """An index as the API tells it."""

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True)
class Grant:
    """What one role may do with one object."""

    user: str
    privileges: tuple[str, ...]


@dataclass(frozen=True)
class Database:
    """A database's details."""

    name: str
    id: int
    size_bytes: int
    table_count: int
    store_ids: tuple[int, ...]


@dataclass(frozen=True)
class ListedTable:
    """A table as its database's listing tells it."""

    name: str
    schema_name: str
    table_id: int
    size_bytes: int


@dataclass(frozen=True)
class TableDetails:
    """Everything that is told of one table."""

    table_name: str
    table_id: int
    database_name: str
    schema_name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    grants: tuple[Grant, ...]
    range_count: int
    size_bytes: int
