"""The floor: a throw-away script that reads everything and writes Parquet, `python -m tests.benchmarks.floor URL DIR`.

What a whole export costs without retries, order, limits, accounting, or memory bounds, at a fixed concurrency. Nobody
should run this against a cluster.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.workload import API, SESSION

Rows = dict[str, list[tuple[Any, ...]]]
FIELDS = {
    "databases": ("database_name", "database_id", "size_bytes", "table_count", "store_ids"),
    "database_grants": ("database_name", "grantee", "privilege_type"),
    "tables": ("database_name", "schema_name", "table_name", "table_id", "size_bytes", "range_count"),
    "columns": ("table_id", "column_name", "ordinal_position", "data_type", "is_nullable"),
    "indexes": ("table_id", "index_name", "is_unique", "column_names"),
    "table_grants": ("table_id", "grantee", "privilege_type"),
}


class Connections:
    """Keep-alive connections, one for each worker."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._token = msgspec.json.decode(SESSION)["session"]

    async def work(self, items: asyncio.Queue[Any], read: Callable[..., Coroutine[Any, Any, None]]) -> None:
        """Read items until none is left."""
        reader, writer = await asyncio.open_connection(*self._address)

        async def get(path: str) -> Any:
            head = f"GET {API}/{path} HTTP/1.1\r\nHost: floor\r\nX-Cockroach-API-Session: {self._token}\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            return msgspec.json.decode(await reader.readexactly(int(length)))

        while not items.empty():
            await read(get, *items.get_nowait())
        writer.close()


async def everything(url: str, concurrency: int) -> Rows:
    """All rows, in whatever order they come."""
    rows: Rows = {name: [] for name in FIELDS}
    databases: list[str] = []
    tables: list[tuple[str, str]] = []

    async def read_list(get: Callable[..., Any]) -> None:
        databases.extend(each["name"] for each in (await get("databases"))["databases"])

    async def read_database(get: Callable[..., Any], name: str) -> None:
        details, grants = await get(f"databases/{name}"), await get(f"databases/{name}/grants")
        tables.extend((name, each["name"]) for each in (await get(f"databases/{name}/tables"))["tables"])
        add_database(rows, details, grants)

    async def read_table(get: Callable[..., Any], database: str, table: str) -> None:
        add_table(rows, await get(f"databases/{database}/tables/{table}"))

    connections = Connections(url)

    async def in_turn(items: Iterable[tuple[str, ...]], read: Callable[..., Coroutine[Any, Any, None]]) -> None:
        waiting: asyncio.Queue[Any] = asyncio.Queue()
        for item in items:
            waiting.put_nowait(item)
        await asyncio.gather(*(connections.work(waiting, read) for _ in range(min(concurrency, waiting.qsize()))))

    await in_turn([()], read_list)
    await in_turn([(name,) for name in databases], read_database)
    await in_turn(tables, read_table)
    return rows


def add_database(rows: Rows, details: dict[str, Any], grants: dict[str, Any]) -> None:
    name = details["database_name"]
    known = (name, int(details["descriptor_id"]), details["size_bytes"], details["table_count"], details["store_ids"])
    rows["databases"].append(known)
    rows["database_grants"] += ((name, *each) for each in privileges(grants))


def add_table(rows: Rows, details: dict[str, Any]) -> None:
    own = int(details["table_id"])
    names = (details["database_name"], details["schema_name"], details["table_name"])
    rows["tables"].append((*names, own, details["size_bytes"], details["range_count"]))
    columns = enumerate(details["columns"], start=1)
    rows["columns"] += ((own, each["name"], place, each["type"], each["nullable"]) for place, each in columns)
    rows["indexes"] += ((own, each["name"], each["unique"], each["columns"]) for each in details["indexes"])
    rows["table_grants"] += ((own, *each) for each in privileges(details))


def privileges(reply: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Who holds which privilege, one by one."""
    return ((each["user"], privilege) for each in reply["grants"] for privilege in each["privileges"])


def write(rows: Rows, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for stream, names in FIELDS.items():
        columns = zip(*rows[stream], strict=True)
        table = pa.table(dict(zip(names, (pa.array(column) for column in columns), strict=True)))
        pq.write_table(table, directory / f"{stream}.parquet", compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--concurrency", type=int, default=8)
    given = parser.parse_args()
    write(asyncio.run(everything(given.url, given.concurrency)), given.directory)


if __name__ == "__main__":
    main()
