"""What the independent server tells, as the very objects that go over the wire, and the records that must come of it.

Nothing here knows the package under test: the expected records are worked out from the wire objects in plain Python,
by the published contract of the streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

Wire = dict[str, Any]
Record = dict[str, Any]

LARGEST = 2**63 - 1
TABLES_EACH = 40
PLAIN_NAMES = ("bank", "inventory", "movr", "web_shop")
HOSTILE_NAMES = (
    "a/b",
    "50%",
    "Prod-Data",
    "?q#f",
    "🐢 turtles",
    "two words",
    'the "quoted"',
    "semi;colon&amp",
    "Ünïcode",
    "line\nbreak",
    "%2F",
)
HOSTILE_TABLES = (
    "orders/2024",
    "%2e%2e",
    "order items",
    '"quoted"',
    "100%",
    "🦎",
    "tab\tand\nline",
    "a?b=c&d#e",
    "null",
    "007",
    "2024-01-01",
    "\u2028separated",
    "back\\slash",
    "...",
)
SCHEMAS = ("public", "audit", "Sales/2024", "ünï schema")


def make_world() -> dict[str, Wire]:
    """Databases by name: each with its entry in the listing, its details, its grants and its tables."""
    names = [*reversed(PLAIN_NAMES), *HOSTILE_NAMES]
    return {name: _database(name, number) for number, name in enumerate(names)}


def _database(name: str, number: int) -> Wire:
    descriptor = 100 + number * 1_000
    tables = [_table(name, descriptor, position) for position in range(TABLES_EACH)]
    details: Wire = {
        "database_name": name,
        "descriptor_id": str(descriptor),
        "size_bytes": (LARGEST, str(LARGEST - number), 0, 1_073_741_824)[number % 4],
        "table_count": str(TABLES_EACH) if number % 2 else TABLES_EACH,
        "store_ids": [1, "2", 3],
        "zone_config": {"num_replicas": 3},
    }
    entry: Wire = {"name": name, "id": descriptor if number % 3 else str(descriptor), "owner": "root"}
    if number == 5:
        details = {"database_name": name, "descriptor_id": None, "size_bytes": None, "table_count": None}
    if number == 6:
        entry, details = {"name": name}, {"unknown": [1, 2]}
    if number == 7:
        entry, details["store_ids"] = {"name": name, "id": None}, []
    return {"entry": entry, "details": details, "grants": _grants(number), "tables": tables}


def _grants(number: int) -> list[Wire]:
    everyone: list[Wire] = [
        {"user": "admin", "privileges": ["ALL"], "grantable": True},
        {"user": "app", "privileges": ["SELECT", "INSERT", "UPDATE"]},
        {"user": "app", "privileges": ["DELETE", "SELECT"]},
        {"user": 'o"dd / úser', "privileges": ["CONNECT", "CONNECT"]},
        {"user": "nobody", "privileges": []},
    ]
    return everyone[: number % 6]


def _table(database: str, descriptor: int, position: int) -> Wire:
    """One table in the listing and in detail; `position` decides what is a string, what is null, what is missing."""
    hostile = position < len(HOSTILE_TABLES)
    name = HOSTILE_TABLES[position] if hostile else f"table_{TABLES_EACH - position:03d}"
    schema, number = SCHEMAS[position % len(SCHEMAS)], descriptor + 1 + position
    sizes: tuple[Any, ...] = (LARGEST, str(LARGEST), 0, "54", 524_288_000, None)
    listed: Wire = {
        "name": name,
        "schema_name": schema,
        "table_id": str(number) if position % 2 else number,
        "size_bytes": 7 + position,
        "kind_of_thing": "table",
    }
    details: Wire = {
        "table_name": name,
        "table_id": number if position % 2 else str(number),
        "database_name": database,
        "schema_name": schema,
        "columns": [_column(position, place) for place in range(position % 5)],
        "indexes": [_index(position, place) for place in range(position % 3)],
        "grants": _grants(position),
        "range_count": (1, "12", None, LARGEST)[position % 4],
        "size_bytes": sizes[position % len(sizes)],
        "statistics": None,
    }
    for key in ("table_id", "size_bytes")[: position % 4 // 2]:
        del listed[key]
    if position % 7 == 3:
        for key in ("table_id", "schema_name", "database_name", "table_name", "range_count", "size_bytes"):
            del details[key]
    if position % 9 == 4:
        listed["table_id"] = listed["size_bytes"] = details["schema_name"] = details["database_name"] = None
    return {"listed": listed, "details": details}


def _column(position: int, place: int) -> Wire:
    names = ("id", "e/mail", "Größe", 'quo"ted', "line\nbreak")
    types = ("UUID", "STRING(20)", "DECIMAL(10,2)", "INT8[]", "ENUM('a', 'b')")
    return {
        "name": names[place],
        "type": types[(position + place) % 5],
        "nullable": bool(place % 2),
        "default": "gen_random_uuid()" if place == 0 else None,
    }


def _index(position: int, place: int) -> Wire:
    keys: tuple[list[str], ...] = (["id"], ["e/mail", "id", "Größe"], [])
    return {"name": f"index {place} % of {position}", "columns": keys[(position + place) % 3], "unique": place == 0}


def expected_records(world: dict[str, Wire], envelope: Record) -> dict[str, list[Record]]:
    """Every stream's records, in the order of the contract: code points, then the server's own order."""
    streams: dict[str, list[Record]] = {
        name: [] for name in ("databases", "database_grants", "tables", "columns", "indexes", "table_grants")
    }
    for stream, key_length, fields in _told(world):
        key = list(fields.values())[:key_length]
        ident = record_id(envelope["cluster"], stream, key)
        streams[stream].append({**envelope, "record_id": ident, **fields})
    return streams


def record_id(cluster: str, stream: str, key: Iterable[str]) -> str:
    document = json.dumps([cluster, stream, *key], ensure_ascii=False, separators=(",", ":"))
    return blake2b(document.encode(), digest_size=16).hexdigest()


def _told(world: dict[str, Wire]) -> Iterator[tuple[str, int, Record]]:
    for name in sorted(world):
        database = world[name]
        yield "databases", 1, _database_record(name, database["entry"], database["details"])
        for grant in _grant_records(database["grants"]):
            yield "database_grants", 3, {"database_name": name, **grant}
        for table in sorted(
            database["tables"], key=lambda each: (each["listed"]["schema_name"], each["listed"]["name"])
        ):
            yield from _told_of_table(name, table["listed"], table["details"])


def _told_of_table(database: str, listed: Wire, details: Wire) -> Iterator[tuple[str, int, Record]]:
    key = {"database_name": database, "schema_name": listed["schema_name"], "table_name": listed["name"]}
    yield "tables", 3, {**key, **_table_fields(listed, details)}
    for ordinal, column in enumerate(details["columns"], start=1):
        yield "columns", 4, {**key, **_column_fields(column, ordinal)}
    for index in details["indexes"]:
        yield "indexes", 4, {**key, **_index_fields(index)}
    for grant in _grant_records(details["grants"]):
        yield "table_grants", 5, {**key, **grant}


def _database_record(name: str, entry: Wire, details: Wire) -> Record:
    stores = details.get("store_ids")
    return {
        "database_name": name,
        "database_id": _first(details.get("descriptor_id"), entry.get("id")),
        "size_bytes": _first(details.get("size_bytes")),
        "replicated_bytes": None,
        "table_count": _first(details.get("table_count")),
        "store_ids": None if stores is None else [int(each) for each in stores],
        "stats_as_of": None,
        "details": "fetched",
    }


def _table_fields(listed: Wire, details: Wire) -> Record:
    return {
        "table_id": _first(details.get("table_id"), listed.get("table_id")),
        "kind": None,
        "size_bytes": _first(details.get("size_bytes"), listed.get("size_bytes")),
        "replicated_bytes": None,
        "live_bytes": None,
        "range_count": _first(details.get("range_count")),
        "replica_count": None,
        "store_ids": None,
        "stats_as_of": None,
        "details": "fetched",
        "create_statement": None,
        "configure_zone_statement": None,
        "zone_config": None,
    }


def _column_fields(column: Wire, ordinal: int) -> Record:
    return {
        "column_name": column["name"],
        "ordinal_position": ordinal,
        "data_type": column["type"],
        "is_nullable": column["nullable"],
        "is_hidden": None,
        "column_default": None,
        "generation_expression": None,
    }


def _index_fields(index: Wire) -> Record:
    return {
        "index_name": index["name"],
        "is_unique": index["unique"],
        "column_names": index["columns"],
        "directions": None,
        "stored_columns": None,
    }


def _grant_records(grants: list[Wire]) -> list[Record]:
    pairs = dict.fromkeys((grant["user"], privilege) for grant in grants for privilege in grant["privileges"])
    return [{"grantee": user, "privilege_type": privilege} for user, privilege in pairs]


def _first(*values: Any) -> int | None:
    return next((int(value) for value in values if value is not None), None)
