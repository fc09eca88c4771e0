"""Whole exports of a simulated cluster, from Python and from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crdbexport_postgres.local_server import LocalServer

import crdbexport
from crdbexport import ExportConfig
from crdbexport.config import Secret

pytestmark = pytest.mark.slow


def exported(url: str, run_id: str, sink: dict[str, Any], **changes: Any) -> crdbexport.RunReport:
    settings = {"cluster": "c1", "username": "demo", "password": Secret("demo"), "run_id": run_id, "url": (url,)}
    return crdbexport.export(ExportConfig(**settings, sinks={"pg": {"type": "postgres", **sink}}, **changes))


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "crdbexport", *arguments], capture_output=True, text=True, check=False)


def test_an_export_publishes_every_record_and_a_repeat_nothing_new(target: Any, crdb_sandbox: str) -> None:
    report = exported(crdb_sandbox, "r1", {"target": target.uri}).raise_for_status()
    [sink] = report.sinks
    assert sink.target == f"postgresql://127.0.0.1:{target.server.port}/{target.database}"
    for stream, counts in report.streams.items():
        assert counts.extracted > 0
        assert target.query(f"SELECT count(*) FROM crdbexport.{stream}") == [(counts.extracted,)]
    before = target.query("SELECT xmin::text, ctid::text FROM crdbexport.columns")
    exported(crdb_sandbox, "r1", {"uri": target.uri}).raise_for_status()
    assert target.query("SELECT xmin::text, ctid::text FROM crdbexport.columns") == before


@pytest.mark.parametrize("works", [True, False])
def test_the_password_stands_nowhere(
    target: Any, crdb_sandbox: str, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, works: bool
) -> None:
    secret = server.password if works else "canary/of the+wrong@password"
    uri = server.uri(target.database, password=secret)
    told = ""
    with caplog.at_level("DEBUG"):
        try:
            told = exported(crdb_sandbox, "r1", {"uri": uri}, keep_spool=True).to_json().decode()
        except crdbexport.CrdbExportError as error:
            told = f"{error!r} {error.__cause__!r} {error.__context__!r}"
    assert ("committed" in told) == works
    assert ("authentication failed" in told) != works
    written = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()).decode("latin-1")
    for shape in (secret, uri.partition(":")[2].partition("@")[0]):
        assert shape not in told + caplog.text + written


def test_check_tells_whether_the_server_can_be_published_to(
    target: Any, crdb_sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    cluster = ("--url", crdb_sandbox, "--cluster", "c1", "--username", "demo")
    ran = run_cli("check", *cluster, "--sink", f"pg=postgres:{target.uri}")
    assert (ran.returncode, "sink pg: ready" in ran.stdout) == (0, True), ran.stderr
    absent = target.server.uri("absent")
    ran = run_cli("check", *cluster, "--sink", f"pg=postgres:{absent}")
    assert ran.returncode == 2
    assert '"absent" does not exist; create the database' in ran.stderr
    assert target.server.password not in ran.stdout + ran.stderr
