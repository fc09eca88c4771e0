"""`crdbexport verify`: findings for people, for programs, and in the exit code."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_progress import on_terminal

Run = Callable[..., Any]


@pytest.fixture(params=["parquet", "jsonl"])
def lake(request: pytest.FixtureRequest, run_cli: Run, cluster: list[str], tmp_path: Path) -> Path:
    """What an export of the sandbox has published."""
    place = tmp_path / "lake"
    assert run_cli("export", *cluster, "--run-id", "r1", "--sink", f"{request.param}:{place}").exit_code == 0
    return place


def tables(lake: Path) -> Path:
    [path] = (lake / "tables").rglob("c1.r1.*")
    return path


def test_what_an_export_published_is_as_published(run_cli: Run, lake: Path) -> None:
    ran = run_cli("verify", str(lake))
    published = [path for path in lake.glob("*/date=*/*") if path.is_file()]
    size = sum(path.stat().st_size for path in published)
    [manifest] = (lake / "_manifests").iterdir()
    records = sum(json.loads(manifest.read_bytes())["rows"].values())
    assert (ran.exit_code, ran.err) == (0, "")
    assert ran.out == f"runs: 1, as published: 6 files with {records:,} records in {size:,} bytes, findings: 0\n"


def test_each_finding_is_a_line_with_its_file_and_what_to_do(run_cli: Run, lake: Path) -> None:
    tables(lake).unlink()
    (lake / "columns" / "x\x1b[31m\n").touch()
    ran = run_cli("verify", str(lake))
    assert (ran.exit_code, ran.err) == (3, "")
    missing, orphan, summary = ran.out.splitlines()
    assert missing == (
        f"{tables_path(lake)}: there is no such file; restore it from a copy, "
        "or remove _manifests/c1.r1.json and then the files that it names"
    )
    assert orphan.startswith(f"{lake}/columns/x\\x1b[31m : no manifest names this file, and readers read it; remove it")
    assert summary.startswith("runs: 1, as published: 5 files with ")
    assert summary.endswith(", findings: 2")


def tables_path(lake: Path) -> str:
    [manifest] = (lake / "_manifests").iterdir()
    [path] = [each["path"] for each in json.loads(manifest.read_bytes())["files"] if each["stream"] == "tables"]
    return f"{lake}/{path}"


def test_a_program_reads_one_document(run_cli: Run, lake: Path) -> None:
    path = tables(lake)
    path.write_bytes(path.read_bytes()[:-1])
    ran = run_cli("verify", str(lake), "--json")
    document = json.loads(ran.out)
    [finding] = document.pop("findings")
    assert (ran.exit_code, ran.err) == (3, "")
    assert (finding["kind"], finding["path"]) == ("altered", str(path.relative_to(lake)))
    assert document.keys() == {"directory", "runs", "files", "rows", "size_bytes"}
    assert (document["directory"], document["runs"], document["files"]) == (str(lake), 1, 5)


def test_quiet_leaves_only_findings(run_cli: Run, lake: Path) -> None:
    assert run_cli("verify", str(lake), "-q").out == ""
    tables(lake).unlink()
    ran = run_cli("verify", "-q", str(lake))
    assert (ran.exit_code, ran.out.count("\n")) == (3, 1)


def test_one_cluster_is_checked_alone(run_cli: Run, lake: Path) -> None:
    assert run_cli("verify", str(lake), "--cluster", "c1").exit_code == 0
    ran = run_cli("verify", str(lake), "--cluster", "c2")
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err.startswith(f'error: {lake}: holds nothing of cluster "c2"')


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_what_is_no_lake_is_wrong_usage(run_cli: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    ran = run_cli("verify", str(tmp_path / place))
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {tmp_path / place}: nothing was published here")
    assert not (tmp_path / "nowhere").exists()


def test_what_cannot_be_read_now_has_its_own_exit_code(
    run_cli: Run, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Any:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(hashlib, "file_digest", failing)
    ran = run_cli("verify", str(lake))
    assert ran.exit_code == 5
    assert ran.out.count("Input/output error; mend that, then verify it again") == 6


@pytest.mark.slow
def test_progress_appears_on_a_terminal_only_and_not_when_quiet(lake: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "crdbexport"), "verify", "lake"]
    exit_code, out, screen = on_terminal(command, dict(os.environ), tmp_path)
    assert (exit_code, out.count("\n")) == (0, 1)
    assert "checking" in screen
    assert " files, " in screen
    assert on_terminal([*command, "-q"], dict(os.environ), tmp_path) == (0, "", "")
