"""The documented answers about databases and tables, read from a world."""

from __future__ import annotations

from http import HTTPStatus, client
from typing import Any

import msgspec
from starlette.responses import Response

from crdbexport.sandbox.objects import Database, ListedTable, TableDetails
from crdbexport.sandbox.world import World


def databases_answer(world: World, segments: list[str]) -> Response:
    """The answer to `GET databases/...`; `segments` are what follows `databases`, decoded."""
    if not segments:
        listed = [{"name": name, "id": str(world.database_id(name))} for name in world.database_names()]
        return json_answer({"databases": listed})
    name, *rest = segments
    if world.database_id(name) is None:
        return missing("database", name)
    return _part_answer(world, name, rest) if rest else _database_answer(world, name)


def _database_answer(world: World, name: str) -> Response:
    database = world.database(name)
    return json_answer(_database(database)) if database else missing("database", name)


def _part_answer(world: World, database_name: str, rest: list[str]) -> Response:
    match rest:
        case ["grants"]:
            return json_answer({"grants": world.database_grants(database_name)})
        case ["tables"]:
            return json_answer({"tables": [_listed_table(each) for each in world.tables(database_name)]})
        case ["tables", table_name]:
            table = world.table(database_name, table_name)
            return json_answer(_table(table)) if table else missing("table", table_name)
    return no_endpoint()


def _database(database: Database) -> dict[str, Any]:
    return {
        "database_name": database.name,
        "descriptor_id": str(database.id),
        "size_bytes": database.size_bytes,
        "table_count": database.table_count,
        "store_ids": database.store_ids,
    }


def _listed_table(table: ListedTable) -> dict[str, Any]:
    return {
        "name": table.name,
        "schema_name": table.schema_name,
        "table_id": str(table.table_id),
        "size_bytes": table.size_bytes,
    }


def _table(table: TableDetails) -> dict[str, Any]:
    return {
        "table_name": table.table_name,
        "table_id": str(table.table_id),
        "database_name": table.database_name,
        "schema_name": table.schema_name,
        "columns": [{"name": each.name, "type": each.type, "nullable": each.nullable} for each in table.columns],
        "indexes": [{"name": each.name, "columns": each.columns, "unique": each.unique} for each in table.indexes],
        "grants": table.grants,
        "range_count": table.range_count,
        "size_bytes": table.size_bytes,
    }


def missing(kind: str, name: str) -> Response:
    """404 for a database or table."""
    return error_answer(HTTPStatus.NOT_FOUND, f'{kind} "{name}" does not exist')


def no_endpoint() -> Response:
    """404 for a path outside the API."""
    return error_answer(HTTPStatus.NOT_FOUND, "no such endpoint")


def error_answer(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as the API words it."""
    phrase = client.responses.get(status, "error").lower()
    return json_answer({"error": phrase, "message": message}, status, headers)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON; dataclasses become objects."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
