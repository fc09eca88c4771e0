"""Model values as rows: tuples of a stream's own fields, in the order in which `records.STREAMS` declares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from crdbexport.cluster.model import Database, DatabaseDetails, Grant, Table, TableDetails

Row = tuple[Any, ...]
V = TypeVar("V")

# What tells the rows of one database, or of one table, apart.
_GRANT, _NAME, _TABLE_GRANT = itemgetter(1, 2), itemgetter(3), itemgetter(3, 4)


def database_row(database: Database, details: DatabaseDetails, status: str) -> Row:
    return (
        database.name,
        _first(details.database_id, database.database_id),
        details.size_bytes,
        details.replicated_bytes,
        details.table_count,
        _list(details.store_ids),
        details.stats_as_of,
        status,
    )


def database_grant_rows(database: Database, grants: Iterable[Grant]) -> list[Row]:
    return _distinct([(database.name, each.grantee, each.privilege) for each in grants], _GRANT)


def table_row(table: Table, details: TableDetails, status: str) -> Row:
    """Where list and details disagree, details win."""
    return (
        *_table_key(table),
        _first(details.table_id, table.table_id),
        table.kind,
        _first(details.size_bytes, table.size_bytes),
        table.stats.replicated_bytes,
        _first(details.live_bytes, table.stats.live_bytes),
        _first(details.range_count, table.stats.range_count),
        table.stats.replica_count,
        _list(table.stats.store_ids),
        table.stats.stats_as_of,
        status,
        details.create_statement,
        details.configure_zone_statement,
        details.zone_config,
    )


def column_rows(table: Table, details: TableDetails) -> list[Row]:
    key = _table_key(table)
    rows = [
        (
            *key,
            each.name,
            position,
            each.data_type,
            each.is_nullable,
            each.is_hidden,
            each.column_default,
            each.generation_expression,
        )
        for position, each in enumerate(details.columns, start=1)
    ]
    return _distinct(rows, _NAME)


def index_rows(table: Table, details: TableDetails) -> list[Row]:
    key = _table_key(table)
    rows = [
        (
            *key,
            each.name,
            each.is_unique,
            list(each.column_names),
            _list(each.directions),
            _list(each.stored_columns),
        )
        for each in details.indexes
    ]
    return _distinct(rows, _NAME)


def table_grant_rows(table: Table, details: TableDetails) -> list[Row]:
    key = _table_key(table)
    return _distinct([(*key, each.grantee, each.privilege) for each in details.grants], _TABLE_GRANT)


def _table_key(table: Table) -> tuple[str, str, str]:
    return (table.database, table.schema, table.name)


def _distinct(rows: list[Row], key: Callable[[Row], Any]) -> list[Row]:
    """The first row of each key, in order: a server may name a privilege twice."""
    if len(set(map(key, rows))) == len(rows):
        return rows
    first: dict[Any, Row] = {}
    for row in rows:
        first.setdefault(key(row), row)
    return list(first.values())


def _first(value: V | None, otherwise: V | None) -> V | None:
    return otherwise if value is None else value


def _list(values: Sequence[V] | None) -> list[V] | None:
    return None if values is None else list(values)
