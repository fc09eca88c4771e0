"""`crdbexport check`: would an export work; it exports nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World

Run = Callable[..., Any]


def test_a_check_tells_what_an_export_would_meet(run_cli: Run, cluster: list[str], app: Sandbox) -> None:
    ran = run_cli("check", *cluster)
    assert (ran.exit_code, ran.err) == (0, "")
    assert f"cluster c1 at {cluster[1]}: reached, logged in, dialect documented" in ran.out
    assert "sees 2 databases with 8 tables" in ran.out
    assert "gaps" not in ran.out
    assert (app.logins, app.logouts) == (1, 1)


def test_a_check_foretells_the_number_of_requests(run_cli: Run, cluster: list[str], app: Sandbox) -> None:
    told = run_cli("check", *cluster).out
    asked = app.hits.total()
    assert run_cli("export", *cluster, "--sink", "jsonl:-").exit_code == 0
    assert f"about {app.hits.total() - asked} requests" in told
    assert app.hits.total() - asked > asked


def test_a_check_writes_nothing(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    ran = run_cli("check", *cluster, "--sink", f"lake=parquet:{tmp_path / 'lake'}", "--sink", "jsonl:-")
    assert ran.exit_code == 0
    assert ran.out.startswith("sink lake: ready\nsink jsonl: ready\ncluster c1 at ")
    # What a sink needs to try its target out stays in its staging directory.
    new = {path.relative_to(tmp_path).parts[:2] for path in set(tmp_path.rglob("*")) - before}
    assert new <= {("lake",), ("lake", "_staging")}


def test_a_sink_that_cannot_work_is_refused_before_the_first_request(
    run_cli: Run, cluster: list[str], app: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    ran = run_cli("check", *cluster, "--sink", f"parquet:{tmp_path}/file/lake")
    assert ran.exit_code == 2
    assert "sink parquet: " in ran.err
    assert app.hits.total() == 0


def test_gaps_are_told_and_give_their_exit_code(
    run_cli: Run, serve: Callable[[Sandbox], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    rules = [Rule("/api/v2/databases/bank/grants", Status(403))]
    url = serve(Sandbox(World(2, 2), faults=Faults(rules=rules)))
    ran = run_cli("check", "--url", url, "--cluster", "c1", "--username", "demo")
    assert (ran.exit_code, ran.err) == (3, "")
    assert '1 gaps: forbidden\n  forbidden: grants of "bank"\n' in ran.out
    assert rules[0].fired == 1


def test_a_wrong_password_gives_the_exit_code_of_export(
    run_cli: Run, cluster: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "s3cret-canary")
    ran = run_cli("check", *cluster)
    assert (ran.exit_code, ran.out) == (4, "")
    assert ran.err.startswith('error: login refused for user "demo"')
    assert ran.err.count("\n") == 1
    assert "s3cret-canary" not in ran.err


def test_a_check_needs_no_cluster_to_be_tried_out(run_cli: Run) -> None:
    ran = run_cli("check", "--sandbox")
    assert (ran.exit_code, ran.err) == (0, "")
    assert "cluster sandbox at http://127.0.0.1:" in ran.out
