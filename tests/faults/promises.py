"""What must hold after every export, whatever the cluster did: recounted from what was published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow.parquet as pq

from crdbexport.records import Gap
from tests.faults.behaviours import BODY_CANARY
from tests.faults.fault_server import PASSWORD, SESSION, Request
from tests.faults.suffered import Records, Suffered, files


def assert_published_as_reported(run: Suffered) -> None:
    """Exit codes 0 and 3 have a manifest that is right; all others have none, and no file where readers look."""
    for sink, name, suffix in zip(run.report.sinks, ("lake", "lines"), (".parquet", ".jsonl"), strict=True):
        root = run.place / name
        manifests, published = list(root.glob("_manifests/*.json")), list(root.glob("*/date=*/*"))
        assert sink.status == ("committed" if run.report.exit_code in (0, 3) else sink.status)
        if sink.status != "committed":
            assert run.report.exit_code not in (0, 3)
            left = [path for path in files(root) if path.suffix != ".lock"]
            assert (manifests, published, left) == ([], [], [])
            continue
        manifest = json.loads(manifests.pop().read_text())
        assert not manifests
        assert manifest["complete"] is (run.report.exit_code == 0)
        assert len(manifest["gaps"]) == len(run.report.gaps)
        delivered = {stream: counts.delivered for stream, counts in sink.streams.items()}
        assert {path.relative_to(root).parts[0]: _rows(path) for path in published} == delivered == manifest["rows"]
        assert {path.suffix for path in published} == {suffix}
        for file in manifest["files"]:
            content = (root / file["path"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])


def _rows(path: Path) -> int:
    if path.suffix == ".parquet":
        rows: int = pq.read_table(path).num_rows
        return rows
    return path.read_bytes().count(b"\n")


def assert_nothing_lost_but(gaps: tuple[Gap, ...], told: Records, healthy: Records, *, in_order: bool = True) -> None:
    """Every record of an object that no gap names is as it would be had nothing gone wrong."""
    assert set(told) == set(healthy)
    for stream, whole in healthy.items():
        mine, theirs = ([record for record in each if not _touched(record, gaps)] for each in (told[stream], whole))
        if not in_order:
            mine, theirs = (sorted(each, key=lambda record: record["record_id"]) for each in (mine, theirs))
        assert mine == theirs
    for gap in gaps:
        if gap.part == "details":
            stream = "tables" if gap.table else "databases"
            [record] = [each for each in told[stream] if _named(each) == (gap.database, gap.schema, gap.table)]
            assert record["details"] == gap.reason


def _named(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["database_name"], record.get("schema_name"), record.get("table_name")


def _touched(record: Mapping[str, Any], gaps: tuple[Gap, ...]) -> bool:
    database, schema, table = _named(record)
    return any(
        gap.database == database and ((gap.schema, gap.table) == (schema, table) or (gap.part == "tables" and table))
        for gap in gaps
    )


def assert_secrets_kept(run: Suffered) -> None:
    """No secret, and no body of an error, is in a report, a log, a traceback or a file."""
    told = [run.said.encode(), run.report.to_json(), *(path.read_bytes() for path in files(run.place))]
    told += [str(path.relative_to(run.place)).encode() for path in run.place.rglob("*")]
    forms = (PASSWORD, quote_plus(PASSWORD), json.dumps(PASSWORD)[1:-1], ascii(PASSWORD)[1:-1], SESSION)
    canaries = [BODY_CANARY, *(each.encode() for each in forms)]
    assert [canary for canary in canaries for text in told if canary in text] == []


def assert_secrets_sent_where_they_belong(requests: list[Request]) -> None:
    """The password travels in the body of a login, the session in its header, and neither in a path."""
    for request in requests:
        session = request.header("X-Cockroach-API-Session") or ""
        assert (quote_plus(PASSWORD).encode() in request.body) == (request.path == "/login/")
        assert not session or request.path not in ("/login/", "/health")
        assert request.head.count(SESSION.encode()) == bool(session.startswith(SESSION))
        assert quote_plus(PASSWORD).encode() not in request.head
