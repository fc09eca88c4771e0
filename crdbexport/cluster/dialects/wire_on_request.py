"""One table's details in the native form with what may hold users' data, for runs that ask for it by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import GenericAlias
from typing import Any, cast

import msgspec

from crdbexport.cluster.dialects.wire_native import ColumnEntry, TableReply

# How a reply calls each field of a record, and what it holds there.
TABLE_FIELDS: Mapping[str, tuple[str, Any]] = {
    "create_statement": ("create_table_statement", str | None),
    "configure_zone_statement": ("configure_zone_statement", str | None),
    "zone_config": ("zone_config", dict[str, Any] | None),
}
COLUMN_FIELDS: Mapping[str, tuple[str, Any]] = {
    "column_default": ("default_value", str | None),
    "generation_expression": ("generation_expression", str | None),
}


@functools.cache
def table_reply(include: frozenset[str]) -> type[TableReply]:
    """The shape of a reply that decodes these fields, and no other that may hold users' data."""
    if not include:
        return TableReply
    column = msgspec.defstruct("ColumnEntry", _asked(COLUMN_FIELDS, include), bases=(ColumnEntry,))
    columns = ("columns", GenericAlias(list, (column,)) | None)
    table = msgspec.defstruct(
        "TableReply", [columns, *_asked(TABLE_FIELDS, include)], bases=(TableReply,), kw_only=True
    )
    return cast(type[TableReply], table)


def _asked(known: Mapping[str, tuple[str, Any]], include: frozenset[str]) -> Iterator[tuple[str, Any, Any]]:
    return ((wire_name, kind, None) for name, (wire_name, kind) in known.items() if name in include)
