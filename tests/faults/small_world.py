"""Two databases of three tables each, as the documented form tells of them and as the native form does."""

from __future__ import annotations

import json
from typing import Any

DATABASES = {"bank": 104, "movr": 105}
TABLES = ("accounts", "orders", "users")
GRANTS = [{"user": "admin", "privileges": ["ALL"]}, {"user": "app", "privileges": ["SELECT", "INSERT"]}]


def documented() -> dict[str, Any]:
    """The replies by path."""
    replies: dict[str, Any] = {"/databases": {"databases": [{"name": n, "id": str(i)} for n, i in DATABASES.items()]}}
    for name, number in DATABASES.items():
        replies |= {f"/databases/{name}{path}": reply for path, reply in documented_database(name, number).items()}
    return replies


def documented_database(name: str, number: int) -> dict[str, Any]:
    """The replies below a database, by what follows its name."""
    ids = {table: number * 10 + place for place, table in enumerate(TABLES)}
    listed = [{"name": table, "schema_name": "public", "table_id": str(ids[table])} for table in TABLES]
    own = {"database_name": name, "descriptor_id": str(number), "size_bytes": 4096, "table_count": len(TABLES)}
    tables = {f"/tables/{table}": documented_table(name, table, ids[table]) for table in TABLES}
    return {"": own, "/grants": {"grants": GRANTS}, "/tables": {"tables": listed}, **tables}


def documented_table(database: str, table: str, number: int) -> dict[str, Any]:
    columns = [{"name": "id", "type": "UUID", "nullable": False}, {"name": "né", "type": "STRING", "nullable": True}]
    return {
        "table_name": table,
        "table_id": str(number),
        "database_name": database,
        "schema_name": "public",
        "columns": columns,
        "indexes": [{"name": "primary", "columns": ["id"], "unique": True}],
        "grants": GRANTS,
        "range_count": 2,
        "size_bytes": 1024,
    }


def native() -> dict[str, Any]:
    """The replies of a server before v24.3: names alone, each path with a slash at its end."""
    replies: dict[str, Any] = {"/databases/": {"databases": list(DATABASES)}}
    for name, number in DATABASES.items():
        listed = [f"public.{table}" for table in TABLES]
        replies[f"/databases/{name}/"] = {"descriptor_id": number}
        replies[f"/databases/{name}/grants/"] = {"grants": GRANTS}
        replies[f"/databases/{name}/tables/"] = {"table_names": listed}
        for place, table in enumerate(listed):
            replies[f"/databases/{name}/tables/{table}/"] = native_table(number * 10 + place)
    return replies


def native_table(number: int) -> dict[str, Any]:
    return {
        "grants": GRANTS,
        "columns": [{"name": "id", "type": "UUID"}, {"name": "né", "type": "STRING", "nullable": True}],
        "indexes": [{"name": "t_pkey", "unique": True, "seq": 1, "column": "id", "direction": "ASC"}],
        "range_count": 2,
        "descriptor_id": number,
        "data_total_bytes": 1024,
    }


def on_the_wire(replies: dict[str, Any]) -> dict[str, bytes]:
    """Replies as bytes; what is bytes already stays as it is."""
    return {path: each if isinstance(each, bytes) else json.dumps(each).encode() for path, each in replies.items()}
