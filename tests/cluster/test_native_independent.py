"""Against a second native server, on the standard library alone, which shares no line with the package nor its sandbox.

Every table has columns, an index and a grantee that no other table has, so that a record that carries another table's
data cannot go unseen.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Wire = dict[str, Any]
Key = tuple[str, str, str]

DATABASES = {"shop": 100, "Mixed.Case_2": 200, "node-red": 300}
PLAIN = [("public", f"table_{number:02d}") for number in range(18)]
ODD = [
    ("public", "orders"),
    ("public", "Orders"),
    ("public", "ORDERS"),
    ("audit", "orders"),
    ("Audit", "orders"),
    ("public", "Shipments"),
    ("public", "order"),
    ("public", "2024_sales"),
    ("public", "a.b"),
    ("a", "b"),
    ("public", "a.B"),
    ("public", "with space"),
    ("public", 'quo"te'),
    ("public", "größe"),
    ("public", "dash-ed"),
    ("My Schema", "t"),
    ("user", "t"),
]
VIEWS = [("public", "totals"), ("public", "Totals")]
TABLES = [*PLAIN, *ODD, *VIEWS]
RESERVED = {"order", "user"}
ADDRESSABLE = {*PLAIN, ("public", "orders"), ("audit", "orders"), ("public", "order"), ("a", "b")}
UPDATED = "2026-03-01T10:15:30.1Z"


def table_id(database: str, position: int) -> int:
    return DATABASES[database] + 1 + position


def columns_of(number: int) -> list[Wire]:
    return [
        {"name": f"of_{number}", "type": "UUID", "default_value": "gen_random_uuid()"},
        {"name": "note", "type": "STRING", "nullable": True, "generation_expression": f"secret-{number}"},
        {"name": "rowid", "type": "INT8", "hidden": True},
    ]


def details_of(number: int) -> Wire:
    """One table's details; the rows of its indexes are not in order."""
    return {
        "grants": [{"user": f"role_{number}", "privileges": [each]} for each in ("INSERT", "SELECT")],
        "columns": columns_of(number),
        "indexes": [
            {"name": f"by_note_{number}", "seq": 3, "column": f"of_{number}", "direction": "ASC", "implicit": True},
            {"name": f"pkey_{number}", "unique": True, "seq": 2, "column": "note", "direction": "N/A", "storing": True},
            {"name": f"by_note_{number}", "seq": 1, "column": "note", "direction": "DESC"},
            {"name": f"pkey_{number}", "unique": True, "seq": 1, "column": f"of_{number}", "direction": "ASC"},
            {"name": f"by_note_{number}", "seq": 2, "column": "rowid", "direction": "ASC"},
        ],
        "range_count": number,
        "create_table_statement": f"CREATE TABLE t (CHECK (x != 'secret-{number}'))",
        "descriptor_id": number,
        "data_total_bytes": number * 1000,
        "data_live_bytes": number * 900,
    }


def quoted(part: str) -> str:
    plain = re.fullmatch("[a-z_][a-z0-9_]*", part) and part not in RESERVED
    return part if plain else '"' + part.replace('"', '""') + '"'


def answer(path: str, query: dict[str, list[str]], *, metadata: bool) -> tuple[int, Any]:
    """What the server says to a decoded path below `/api/v2`."""
    name = r"([A-Za-z0-9_.]+)"
    if path == "/databases/":
        return 200, {"databases": sorted(DATABASES)}
    if found := re.fullmatch(f"/databases/{name}/", path):
        known = found[1] in DATABASES
        return (200, {"descriptor_id": DATABASES[found[1]]}) if known else (500, "An internal server error")
    if found := re.fullmatch(f"/databases/{name}/grants/", path):
        return 200, {"grants": [{"user": f"of_{found[1]}", "privileges": ["CONNECT"]}]}
    if found := re.fullmatch(f"/databases/{name}/tables/", path):
        return 200, {"table_names": [f"{quoted(schema)}.{quoted(table)}" for schema, table in TABLES]}
    if found := re.fullmatch(f"/databases/{name}/tables/{name}/", path):
        return by_name(found[1], found[2])
    return by_id(path, query) if metadata else (404, "404 page not found")


def by_name(database: str, requested: str) -> tuple[int, Any]:
    """SQL folds what is not quoted, and takes one dot for the end of a schema."""
    schema, _, table = requested.lower().rpartition(".")
    key = (schema or "public", table)
    if key not in TABLES or key in VIEWS:
        return (500, "An internal server error") if key in VIEWS else (404, "database or table not found")
    return 200, details_of(table_id(database, TABLES.index(key)))


def by_id(path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
    page, size = (int(query.get(each, [default])[0]) for each, default in (("pageNum", "1"), ("pageSize", "10")))
    rows: list[Wire] = []
    if path == "/database_metadata/":
        rows = [
            {"db_id": number, "db_name": name, "size_bytes": 5 * number, "table_count": 35, "store_ids": [number]}
            for name, number in DATABASES.items()
        ]
    elif path == "/table_metadata/":
        [database] = [name for name, number in DATABASES.items() if str(number) in query["dbId"]]
        tables = [(place, key) for place, key in enumerate(TABLES) if key not in VIEWS]
        rows = [measures(table_id(database, place), *key) for place, key in tables]
    elif found := re.fullmatch("/grants/tables/([0-9]+)/", path):
        number = int(found[1])
        return 200, {"results": [{"grantee": f"role_{number}", "privilege": each} for each in ("INSERT", "SELECT")]}
    elif found := re.fullmatch("/grants/databases/300/", path):
        return 200, {"results": [{"grantee": "of_node-red", "privilege": "CONNECT"}], "name": "node-red"}
    else:
        return 404, "404 page not found"
    shown = [{**row, "last_updated": UPDATED} for row in rows[(page - 1) * size : page * size]]
    return 200, {"results": shown or None, "pagination_info": {"total_results": len(rows) if shown else 0}}


def measures(number: int, schema: str, table: str) -> Wire:
    return {
        "table_id": number,
        "schema_name": schema,
        "table_name": table,
        "replication_size_bytes": number * 3000,
        "range_count": number,
        "total_live_data_bytes": number * 900,
        "total_data_bytes": number * 1000,
        "store_ids": None,
        "replica_count": 3 * number,
    }


@pytest.fixture
def start() -> Iterator[Callable[[bool], str]]:
    """Starts the server, with the metadata endpoints or without; answers its URL."""
    running: list[ThreadingHTTPServer] = []

    def run(metadata: bool) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                path = unquote(parts.path).removeprefix("/api/v2")
                status, said = answer(path, parse_qs(parts.query), metadata=metadata)
                self.send(status, said)

            def send(self, status: int, said: Any) -> None:
                plain = isinstance(said, str)
                content = f"{said}\n".encode() if plain else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if plain else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield run
    for server in running:
        server.shutdown()
        server.server_close()


class Published:
    """The records that an export published, and its report."""

    def __init__(self, report: Any, lake: Path) -> None:
        self.report = report
        self._lake = lake

    def records(self, stream: str) -> list[dict[str, Any]]:
        [path] = (self._lake / stream).glob("date=*/*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def by_table(self, stream: str, *fields: str) -> dict[Key, list[tuple[Any, ...]]]:
        grouped: dict[Key, list[tuple[Any, ...]]] = {}
        for row in self.records(stream):
            key = (row["database_name"], row["schema_name"], row["table_name"])
            grouped.setdefault(key, []).append(tuple(row[each] for each in fields))
        return grouped

    @property
    def gaps(self) -> dict[tuple[Any, ...], str]:
        return {(gap.part, gap.database, gap.schema, gap.table): gap.reason for gap in self.report.gaps}


@pytest.fixture
def published(start: Callable[[bool], str], export: Callable[..., Any], tmp_path: Path) -> Callable[[bool], Published]:
    def run(metadata: bool) -> Published:
        sinks = {"lines": {"type": "jsonl", "target": str(tmp_path / "lake")}}
        return Published(export(start(metadata), sinks=sinks, username=None, no_login=True), tmp_path / "lake")

    return run


def numbers(databases: set[str], keys: set[tuple[str, str]]) -> dict[Key, int]:
    """The ids of these tables in these databases."""
    places = [(place, key) for place, key in enumerate(TABLES) if key in keys]
    return {(database, *key): table_id(database, place) for database in databases for place, key in places}


def test_there_are_three_databases_of_37_tables_each() -> None:
    assert (len(DATABASES), len(TABLES), len(set(TABLES))) == (3, 37, 37)


def test_by_name_every_addressable_record_is_equal_and_every_other_is_a_declared_gap(
    published: Callable[[bool], Published],
) -> None:
    told, reached = published(False), {"shop", "Mixed.Case_2"}
    read = numbers(reached, ADDRESSABLE)
    listed = numbers(reached, set(TABLES))
    assert told.by_table("tables", "table_id", "size_bytes", "live_bytes", "range_count", "details") == {
        **{key: [(None, None, None, None, told.gaps.get(("details", *key)))] for key in listed},
        **{key: [(each, each * 1000, each * 900, each, "fetched")] for key, each in read.items()},
    }
    assert_details_are_of(read, told)
    assert_grants_are_of(read, told)
    views = numbers(reached, {("public", "totals")})
    gaps: dict[tuple[Any, ...], str] = {("details", *key): "unaddressable" for key in listed.keys() - read.keys()}
    gaps |= {("details", *key): "server_error" for key in views}
    gaps |= {(part, "node-red", None, None): "unaddressable" for part in ("details", "grants", "tables")}
    assert told.gaps == gaps


@pytest.mark.slow
def test_by_id_every_grant_and_measure_is_equal_and_every_other_record_is_a_declared_gap(
    published: Callable[[bool], Published],
) -> None:
    told, reached = published(True), {"shop", "Mixed.Case_2"}
    tables = set(TABLES) - set(VIEWS)
    measured = numbers(set(DATABASES), tables)
    fields = ("table_id", "kind", "size_bytes", "replicated_bytes", "live_bytes", "range_count", "replica_count")
    rows = told.by_table("tables", *fields, "store_ids")
    assert {key: rows[key] for key in measured} == {
        key: [(each, "table", each * 1000, each * 3000, each * 900, each, each * 3, [])]
        for key, each in measured.items()
    }
    assert rows.keys() - measured.keys() == numbers(reached, set(VIEWS)).keys()
    read = numbers(reached, ADDRESSABLE)
    assert_details_are_of(read, told)
    assert_grants_are_of(measured, told)
    listed = numbers(reached, set(TABLES)).keys() | numbers({"node-red"}, tables).keys()
    gaps: dict[tuple[Any, ...], str] = {("details", *key): "unaddressable" for key in listed - read.keys()}
    gaps |= {("details", *key): "view" for key in numbers(reached, {("public", "totals")})}
    gaps["tables", "node-red", None, None] = "unaddressable"
    assert told.gaps == gaps
    assert [
        (row["database_name"], row["database_id"], row["replicated_bytes"]) for row in told.records("databases")
    ] == [(name, DATABASES[name], 5 * DATABASES[name]) for name in sorted(DATABASES)]
    assert {(row["database_name"], row["grantee"]) for row in told.records("database_grants")} == {
        (name, f"of_{name}") for name in DATABASES
    }


def assert_details_are_of(read: dict[Key, int], told: Published) -> None:
    """Columns and indexes are there for these tables alone, and are their own."""
    fields = ("column_name", "ordinal_position", "data_type", "is_nullable", "is_hidden")
    assert told.by_table("columns", *fields) == {
        key: [
            (f"of_{each}", 1, "UUID", False, False),
            ("note", 2, "STRING", True, False),
            ("rowid", 3, "INT8", False, True),
        ]
        for key, each in read.items()
    }
    fields = ("index_name", "is_unique", "column_names", "directions", "stored_columns")
    assert told.by_table("indexes", *fields) == {
        key: [
            (f"by_note_{each}", False, ["note", "rowid"], ["DESC", "ASC"], []),
            (f"pkey_{each}", True, [f"of_{each}"], ["ASC"], ["note"]),
        ]
        for key, each in read.items()
    }


def assert_grants_are_of(read: dict[Key, int], told: Published) -> None:
    assert told.by_table("table_grants", "grantee", "privilege_type") == {
        key: [(f"role_{each}", "INSERT"), (f"role_{each}", "SELECT")] for key, each in read.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("metadata", [False, True])
def test_no_default_expression_or_statement_is_published(
    published: Callable[[bool], Published], metadata: bool, tmp_path: Path
) -> None:
    assert published(metadata).report.streams["columns"].extracted > 100
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [each for each in contents if b"secret-" in each or b"gen_random_uuid" in each]
