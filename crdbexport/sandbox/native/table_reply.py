"""One table's details as they stand on the wire: absent zeros, null lists, one row per index and column."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from crdbexport.sandbox.native.names import listed, quoted
from crdbexport.sandbox.native.quirks import Generation
from crdbexport.sandbox.native.replies import present, rfc3339
from crdbexport.sandbox.objects import Column, Grant, TableDetails

SENSITIVE = "sensitive-literal"
"""Stands wherever a real answer may hold a user's data, and so must never be found in an export that asked for none."""

GENERATED_DEFAULTS = {"UUID": "gen_random_uuid()", "TIMESTAMPTZ": "now()", "TIMESTAMP": "now()"}
ZONE = {"range_min_bytes": 134217728, "range_max_bytes": 536870912, "gc": {"ttl_seconds": 14400}, "num_replicas": 3}
NEWER_ZONE = {"num_voters": 0, "voter_constraints": None, "global_reads": False}


def table_reply(table: TableDetails, generation: Generation, stats_created: datetime) -> dict[str, Any]:
    """The answer to `databases/{db}/tables/{table}/`: no name of the table and no schema, only its id."""
    lists = {
        "grants": grant_rows(table.grants) or None,
        "columns": _column_rows(table, generation) or None,
        "indexes": index_rows(table) or None,
    }
    scalars = present(
        range_count=table.range_count,
        create_table_statement=create_statement(table),
        zone_config=_zone_config(table, generation),
        zone_config_level=1,
        descriptor_id=table.table_id,
        configure_zone_statement="ALTER RANGE default CONFIGURE ZONE USING\n\tnum_replicas = 3",
        stats_last_created_at=rfc3339(stats_created),
        has_index_recommendations=table.table_id % 5 == 0,
        data_total_bytes=table.size_bytes,
        data_live_bytes=table.live_bytes,
        data_live_percentage=live_share(table),
    )
    return lists | scalars


def grant_rows(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """One element per grantee and privilege."""
    return [{"user": grant.user, "privileges": [each]} for grant in grants for each in grant.privileges]


def index_rows(table: TableDetails) -> list[dict[str, Any]]:
    """One element per index and column, in an order that nobody promises."""
    names = [column.name for column in table.columns]
    key = table.indexes[0].columns if table.indexes else ()
    rows: list[dict[str, Any]] = []
    for index in table.indexes:
        primary = index is table.indexes[0]
        stored = [name for name in names if name not in key] if primary else index.stored
        implicit = [name for name in key if name not in index.columns and name not in stored]
        parts: list[tuple[str, str, dict[str, bool]]]
        parts = [(name, way, {}) for name, way in zip(index.columns, index.directions, strict=True)]
        parts += [(name, "N/A", {"storing": True}) for name in stored]
        parts += [(name, "ASC", {"implicit": True}) for name in implicit]
        rows += [
            present(name=index.name, unique=index.unique, seq=seq, column=name, direction=way) | flags
            for seq, (name, way, flags) in enumerate(parts, 1)
        ]
    random.Random(table.table_id).shuffle(rows)
    return rows


def live_share(table: TableDetails) -> float:
    """Live bytes as a ratio, 0 where there are none."""
    return round(table.live_bytes / table.size_bytes, 6) if table.size_bytes else 0.0


def create_statement(table: TableDetails) -> str:
    """What SHOW CREATE says, more or less."""
    columns = ",\n\t".join(
        f"{quoted(each.name)} {each.type} {'NULL' if each.nullable else 'NOT NULL'}" for each in table.columns
    )
    name = listed(table.schema_name, table.table_name)
    return f"CREATE TABLE {name} (\n\t{columns},\n\tCONSTRAINT odd CHECK ('{SENSITIVE}' != '')\n)"


def _column_rows(table: TableDetails, generation: Generation) -> list[dict[str, Any]]:
    computed = _computed_column(table)
    return [
        present(
            name=column.name,
            type=column.type,
            nullable=column.nullable,
            default_value=_default(column, generation),
            generation_expression=f"concat('{SENSITIVE}', '')" if column.name == computed else "",
            hidden=column.hidden,
        )
        for column in table.columns
    ]


def _computed_column(table: TableDetails) -> str | None:
    """The last text column that may be null."""
    return next((each.name for each in reversed(table.columns) if each.nullable and each.type == "STRING"), None)


def _default(column: Column, generation: Generation) -> str:
    if column.hidden:
        return "unique_rowid()"
    if column.nullable:
        return ""
    if column.type == "STRING":
        # Older servers annotate literals with their type.
        return f"'{SENSITIVE}':::STRING" if generation == "v22" else f"'{SENSITIVE}'"
    return GENERATED_DEFAULTS.get(column.type, "")


def _zone_config(table: TableDetails, generation: Generation) -> dict[str, Any]:
    partitioned = bool(table.indexes) and len(table.indexes[0].columns) > 1
    key = base64.b64encode(SENSITIVE.encode()).decode()
    return {
        **ZONE,
        "constraints": None,
        "inherited_constraints": False,
        "lease_preferences": None,
        "inherited_lease_preferences": False,
        **(NEWER_ZONE if generation == "v25" else {}),
        "subzones": None,
        "subzone_spans": [{"key": key, "subzone_index": 0}] if partitioned else None,
    }
