"""One table's details in the native form: grants in pieces, indexes in rows, zeros left out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from crdbexport.cluster.dialects.wire_native import ColumnEntry, GrantEntry, IndexRow, TableReply
from crdbexport.cluster.model import Column, Grant, Index, TableDetails


def details_of(reply: TableReply) -> TableDetails:
    """What the reply tells. An absent measure is null: a server that does not know it leaves it out as it does a zero.

    A table without a range is not real either, so that an absent range count is no zero.
    """
    return TableDetails(
        table_id=reply.descriptor_id,
        size_bytes=reply.data_total_bytes,
        live_bytes=reply.data_live_bytes,
        range_count=reply.range_count or None,
        columns=tuple(map(_column, reply.columns or ())),
        indexes=tuple(indexes_of(reply.indexes or ())),
        grants=tuple(grants_of(reply.grants or ())),
        create_statement=reply.create_table_statement or None,
        configure_zone_statement=reply.configure_zone_statement or None,
        zone_config=None if reply.zone_config is None else msgspec.json.encode(reply.zone_config).decode(),
    )


def grants_of(entries: Iterable[GrantEntry]) -> list[Grant]:
    """One grant per grantee and privilege, each once: the server repeats a grantee for each of its privileges."""
    told = (Grant(entry.user, privilege) for entry in entries for privilege in entry.privileges or ())
    return list(dict.fromkeys(told))


def indexes_of(rows: Iterable[IndexRow]) -> list[Index]:
    """The indexes of one row per index and column, by name: the server promises no order of rows."""
    groups: dict[str, list[IndexRow]] = {}
    for row in sorted(rows, key=lambda row: (row.name, row.seq)):
        groups.setdefault(row.name, []).append(row)
    return [_index(name, group) for name, group in groups.items()]


def _index(name: str, rows: list[IndexRow]) -> Index:
    """Implicit columns are the primary key's, which every index ends in; nobody declared them."""
    key = [row for row in rows if not (row.storing or row.implicit)]
    return Index(
        name=name,
        is_unique=rows[0].unique,
        column_names=tuple(row.column for row in key),
        directions=tuple(row.direction for row in key),
        stored_columns=tuple(row.column for row in rows if row.storing),
    )


def _column(entry: ColumnEntry) -> Column:
    return Column(
        name=entry.name,
        data_type=entry.type,
        is_nullable=entry.nullable,
        is_hidden=entry.hidden,
        column_default=entry.default_value or None,
        generation_expression=entry.generation_expression or None,
    )
