"""What a person is told at the end: counts that are true, commands that run as printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def reading_command(err: str) -> str:
    command = err.partition("read it with:\n")[2].split("\n")[0].strip()
    assert command
    return command


@pytest.mark.slow
def test_the_summary_counts_what_was_published(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ran = run_cli("export", *cluster, "--sink", f"lake=parquet:{tmp_path}/lake", "--report", str(report), "--run-id=r1")
    told = json.loads(report.read_bytes())
    assert ran.err.startswith("run r1 of c1: complete in ")
    assert f"{told['requests']['total']} requests, exit code 0\n" in ran.err
    for name, counts in told["streams"].items():
        assert f"  {name:<16} {counts['extracted']:>12,} records\n" in ran.err
    total = sum(counts["extracted"] for counts in told["streams"].values())
    size = sum(path.stat().st_size for path in (tmp_path / "lake").rglob("*.parquet"))
    assert f"  sink lake ({tmp_path}/lake): committed, {total:,} records, {size:,} bytes\n" in ran.err


def test_a_complete_run_prints_no_command_to_run_it_again(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path}/lake")
    assert ran.exit_code == 0
    assert "again" not in ran.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "sink",
    [
        ["parquet:./my lake"],
        ["jsonl:./it's $HOME"],
        ["jsonl:./lines", "--sink-option", "jsonl.compression=gzip"],
        ["jsonl:./l'\"ines", "--sink-option", "jsonl.compression=zstd"],
    ],
    ids=["parquet", "jsonl", "gzip", "zstd"],
)
def test_the_reading_command_runs_as_printed(
    run_cli: Run,
    in_shell: Run,
    cluster: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sink: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_cli("export", *cluster, "--sink", *sink)
    assert ran.exit_code == 0
    read = in_shell(reading_command(ran.err))
    assert (read.returncode, read.stderr) == (0, "")
    assert "record_id" in read.stdout


@pytest.mark.slow
def test_a_reader_that_has_had_enough_ends_the_export_quietly(in_shell: Run) -> None:
    ran = in_shell("crdbexport export --sandbox --sink jsonl:- -q | head -n 1; echo ${PIPESTATUS[0]} >&2")
    [line] = ran.stdout.splitlines()
    assert json.loads(line)["stream"] == "databases"
    assert ran.stderr == "141\n"


def test_json_lines_on_standard_output_are_nothing_else(run_cli: Run, cluster: list[str]) -> None:
    ran = run_cli("export", *cluster, "--sink", "jsonl:-", "--stream", "tables", "--stream", "databases")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.exit_code == 0
    assert {next(iter(row)) for row in rows} == {"stream"}
    assert [row["stream"] for row in rows] == ["databases"] * 2 + ["tables"] * 8
    assert "sink jsonl (-): committed, 10 records" in ran.err


@pytest.mark.slow
def test_the_module_is_the_command(in_shell: Run) -> None:
    ran = in_shell("python -m crdbexport streams databases; python -m crdbexport nonsense")
    assert ran.returncode == 2
    assert ran.stdout.startswith("databases: ")
    assert ran.stderr == "error: No such command 'nonsense'; see python -m crdbexport --help\n"
