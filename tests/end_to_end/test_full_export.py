"""A whole cluster, served by code that shares nothing with the package, arrives row by row in both formats at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

STREAMS = ("databases", "database_grants", "tables", "columns", "indexes", "table_grants")


def only_file(root: Path, stream: str) -> Path:
    [file] = [path for path in (root / stream).rglob("*") if path.is_file()]
    return file


def manifest(root: Path) -> dict[str, Any]:
    [path] = (root / "_manifests").iterdir()
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def as_json(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value:%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else value
        for name, value in record.items()
    }


def published(root: Path) -> Iterator[tuple[str, Path, int]]:
    for stream in STREAMS:
        path = only_file(root, stream)
        rows = pq.read_table(path).num_rows if path.suffix == ".parquet" else path.read_bytes().count(b"\n")
        yield stream, path, rows


def test_the_export_of_a_foreign_server_is_complete(exported: Any) -> None:
    assert (exported.report.status, exported.report.exit_code) == ("complete", 0)
    assert exported.report.gaps == ()
    assert exported.report.objects.listed == 15 + 15 * 40


@pytest.mark.parametrize("stream", STREAMS)
def test_parquet_holds_the_servers_world_row_by_row(exported: Any, stream: str) -> None:
    rows = pq.read_table(only_file(exported.lake, stream)).to_pylist()
    assert rows
    assert rows == exported.expected[stream]
    assert list(rows[0]) == list(exported.expected[stream][0])


@pytest.mark.parametrize("stream", STREAMS)
def test_json_lines_hold_the_servers_world_row_by_row(exported: Any, stream: str) -> None:
    rows = [json.loads(line) for line in only_file(exported.lines, stream).read_bytes().splitlines()]
    assert rows
    assert rows == [as_json(each) for each in exported.expected[stream]]
    assert list(rows[0]) == list(exported.expected[stream][0])


def test_the_world_covers_what_is_hard_to_carry(exported: Any) -> None:
    tables = exported.expected["tables"]
    assert {2**63 - 1, 0, None} <= {each["size_bytes"] for each in tables}
    assert any(each["table_id"] is None for each in tables)
    assert any(each["database_id"] is None for each in exported.expected["databases"])
    assert {each["store_ids"] is None for each in exported.expected["databases"]} == {True, False}
    assert any("\n" in each["database_name"] for each in tables)
    assert any("/" in each["table_name"] for each in tables)


def test_a_run_logs_in_once_and_logs_out_once(exported: Any) -> None:
    assert (exported.server.logins, exported.server.logouts) == (1, 1)


def test_no_request_is_sent_twice(exported: Any) -> None:
    assert set(exported.server.hits.values()) == {1}
    assert exported.report.requests.total == exported.server.hits.total() == 4 + 15 * 3 + 15 * 40
    assert exported.report.requests.retried == exported.report.requests.failed == 0


@pytest.mark.parametrize("name", ["lake", "lines"])
def test_the_report_counts_what_the_published_files_hold(exported: Any, name: str) -> None:
    [sink] = [each for each in exported.report.sinks if each.name == name]
    files = list(published(getattr(exported, name)))
    assert {stream: counts.delivered for stream, counts in sink.streams.items()} == {
        stream: rows for stream, _, rows in files
    }
    assert {stream: counts.extracted for stream, counts in exported.report.streams.items()} == {
        stream: len(records) for stream, records in exported.expected.items()
    }
    assert sink.bytes == sum(path.stat().st_size for _, path, _ in files)
    assert {(each.stream, each.location, each.rows) for each in sink.artifacts} == {
        (stream, str(path), rows) for stream, path, rows in files
    }


@pytest.mark.parametrize("name", ["lake", "lines"])
def test_the_manifest_agrees_with_the_files(exported: Any, name: str) -> None:
    root = getattr(exported, name)
    document = manifest(root)
    assert document["complete"] is True
    assert document["gaps"] == []
    assert document["files"] == [
        {
            "path": str(path.relative_to(root)),
            "stream": stream,
            "rows": rows,
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for stream, path, rows in published(root)
    ]


def test_neither_password_nor_session_is_left_anywhere(exported: Any) -> None:
    secrets = [b"s3cret-canary", *(token.encode() for token in exported.server.tokens)]
    assert len(secrets) == 2
    files = [path for root in (exported.lake, exported.lines, exported.state) for path in root.rglob("*")]
    contents = [path.read_bytes() for path in files if path.is_file()] + [exported.report.to_json()]
    assert len(contents) > 12
    assert not any(secret in content for content in contents for secret in secrets)
