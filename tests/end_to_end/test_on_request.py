"""What a run asks for by name, from the server to what readers find: beside older files, and behind a mask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crdbexport import RunReport
from crdbexport.records import ON_REQUEST, STREAMS
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.native.table_reply import SENSITIVE
from crdbexport.sandbox.world import World

Export = Callable[..., RunReport]
Serve = Callable[[ClusterApp], str]


def records(lake: Path, stream: str) -> list[dict[str, Any]]:
    [path] = (lake / stream).rglob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_lake_of_files_with_and_without_the_fields_reads(serve: Serve, export: Export, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    url = serve(NativeSandbox(World(1, 4)))
    assert export(url, include=("create_statement",), stream=("tables",)).exit_code == 0
    [new] = (lake / "tables").rglob("*.parquet")
    older = pq.read_table(new, schema=STREAMS["tables"].schema).drop_columns(["create_statement", "zone_config"])
    old = lake / "tables" / "date=2020-01-31" / "c1.r0.parquet"
    old.parent.mkdir()
    pq.write_table(older.set_column(1, "run_id", pa.array(["r0"] * 4)), old)
    counts = "run_id, count(*), count(create_statement), count(zone_config)"
    question = f"select {counts} from read_parquet(?, union_by_name = true) group by run_id order by run_id"
    with duckdb.connect() as connection:
        rows = connection.execute(question, [f"{lake}/tables/*/*.parquet"]).fetchall()
    assert rows == [("r0", 4, 0, 0), ("r1", 4, 4, 0)]


def test_no_byte_holds_a_statement_where_only_expressions_were_asked_for(
    serve: Serve, export: Export, tmp_path: Path
) -> None:
    url = serve(NativeSandbox(World(1, 4)))
    sinks = {"lines": {"type": "jsonl", "target": str(tmp_path / "lake")}}
    assert export(url, sinks=sinks, include=("column_default",), report=str(tmp_path / "report.json")).exit_code == 0
    contents = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(f"'{SENSITIVE}'" in each for each in contents) == 1
    # The run's journal is a database with tables of its own.
    statements = re.compile(r"CREATE TABLE (?!documents |sinks |answers )|CONFIGURE ZONE|concat\(")
    assert not [each for each in contents if statements.search(each)]


def test_what_was_asked_for_can_be_masked(
    serve: Serve, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", "k" * 32)
    sinks = {"lines": {"type": "jsonl", "target": str(tmp_path / "lake")}}
    transforms = ({"type": "mask", "fields": list(ON_REQUEST)},)
    url = serve(NativeSandbox(World(1, 4)))
    assert export(url, sinks=sinks, transforms=transforms, include=tuple(ON_REQUEST)).exit_code == 0
    for name, stream in ON_REQUEST.items():
        told = {row[name] for row in records(tmp_path / "lake", stream)} - {None}
        assert told
        assert all(len(bytes.fromhex(each)) == 16 for each in told)


@pytest.mark.slow
def test_what_is_published_is_what_the_server_sent(serve: Serve, export: Export, tmp_path: Path) -> None:
    app = NativeSandbox(World(1, 4))
    url = serve(app)
    sinks = {"lines": {"type": "jsonl", "target": str(tmp_path / "lake")}}
    assert export(url, sinks=sinks, include=tuple(ON_REQUEST)).exit_code == 0
    header = {"X-Cockroach-API-Session": app.open_session()}
    rows = records(tmp_path / "lake", "tables")
    assert len(rows) == 4
    for row in rows:
        path = f"databases/movr/tables/{row['schema_name']}.{row['table_name']}/"
        told = httpx.get(f"{url}/api/v2/{path}", headers=header, trust_env=False).json()
        assert row["create_statement"] == told["create_table_statement"]
        assert row["configure_zone_statement"] == told["configure_zone_statement"]
        assert json.loads(row["zone_config"]) == told["zone_config"]
