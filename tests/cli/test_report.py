"""`--report`: the account of a run, to a file or alone on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

Run = Callable[..., Any]


def checked(document: str | bytes) -> dict[str, Any]:
    """A report that fits its published schema."""
    report: dict[str, Any] = json.loads(document)
    jsonschema.validate(report, json.loads((resources.files("crdbexport") / "run_report.schema.json").read_bytes()))
    return report


@pytest.mark.slow
def test_the_report_goes_to_a_file(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "--report", str(path), "--run-id", "r1")
    assert (ran.exit_code, ran.out) == (0, "")
    report = checked(path.read_bytes())
    assert (report["run_id"], report["status"], report["exit_code"]) == ("r1", "complete", 0)
    assert report["streams"]["tables"]["extracted"] == 8


@pytest.mark.slow
def test_the_report_is_alone_on_standard_output(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "--report", "-")
    report = checked(ran.out)
    assert report["sinks"][0]["status"] == "committed"
    assert ran.out.startswith("{")
    assert ran.out.endswith("}\n")
    assert f"run {report['run_id']} of c1: complete" in ran.err


@pytest.mark.parametrize(
    ("change", "exit_code", "reason"),
    [
        (["--concurrency", "4", "--sink", "parqet:x"], 2, "no sink type 'parqet'"),
        (["--sink", "jsonl:./lines", "--username", "nobody"], 4, "login refused"),
        (["--sink", "jsonl:./lines", "--database", "nope"], 2, "matches none of the databases"),
    ],
)
def test_a_run_that_fails_has_a_report_too(
    run_cli: Run,
    cluster: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: list[str],
    exit_code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_cli("export", *cluster, *change, "--report", "-")
    report = checked(ran.out)
    assert (ran.exit_code, report["exit_code"], report["status"]) == (exit_code, exit_code, "failed")
    assert reason in report["error"]


@pytest.mark.parametrize("place", ["no/such/report.json", "."])
def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    run_cli: Run, cluster: list[str], tmp_path: Path, place: str
) -> None:
    path = tmp_path / place
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "--report", str(path))
    assert ran.exit_code == 2
    assert f"--report {path}: " in ran.err
    assert not (tmp_path / "lake").exists()
