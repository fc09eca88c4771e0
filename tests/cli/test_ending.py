"""How commands end: each thing is told once, to those who still listen."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran

Run = Callable[..., Ran]

FAILING = """
from crdbexport import Sink, SinkError, hookimpl


class Failing(Sink):
    def write(self, batch):
        raise SinkError("the canary died")


@hookimpl
def crdbexport_register_sinks(register):
    register("failing", Failing)
"""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installs a plugin whose sink fails as soon as it is given something."""
    site = tmp_path / "site"
    metadata = site / "failing-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[crdbexport]\nfailing = failing_plugin_of_endings\n")
    (site / "failing_plugin_of_endings.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("more", [[], ["-q"]], ids=["", "quiet"])
def test_why_a_sink_failed_is_told_to_people_once(
    run_cli: Run, cluster: list[str], tmp_path: Path, more: list[str]
) -> None:
    ran = run_cli("export", *cluster, "--sink", "failing", "--sink", f"parquet:{tmp_path / 'lake'}", *more)
    assert ran.exit_code == 3
    assert ran.err.count("the canary died") == 1
    assert "sink failing failed: the canary died" in ran.err


@pytest.mark.usefixtures("failing")
def test_machines_hear_of_a_failing_sink_when_it_fails_and_of_the_run_at_its_end(
    run_cli: Run, cluster: list[str], tmp_path: Path
) -> None:
    sinks = ["--sink", "failing", "--sink", f"parquet:{tmp_path / 'lake'}"]
    ran = run_cli("export", *cluster, *sinks, "--run-id", "r1", "--log-format", "json")
    events = [json.loads(line) for line in ran.err.splitlines()]
    [failed] = [each for each in events if each["event"] == "sink_failed"]
    assert (failed["level"], failed["sink"]) == ("warning", "failing")
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("run_error", 3)


@pytest.mark.slow
def test_every_line_for_machines_says_of_which_run_it_is(
    run_cli: Run, cluster: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ["--sink", f"parquet:{tmp_path / 'lake'}", "--log-format", "json", "-v"]
    first = run_cli("export", *cluster, *sink, "--run-id", "r1", "--logical-time", "2020-01-01")
    again = run_cli("export", *cluster, *sink, "--run-id", "r1", "--logical-time", "2020-01-01")
    nameless = run_cli("export", *cluster, *sink)
    for ran, run_id in ((first, "r1"), (again, "r1"), (nameless, None)):
        events = [json.loads(line) for line in ran.err.splitlines()]
        assert ran.exit_code == 0
        assert {each["cluster"] for each in events} == {"c1"}
        run_ids = {each["run_id"] for each in events}
        assert len(run_ids) == 1
        assert run_id is None or run_ids == {run_id}
    assert {"logical_time_not_today", "run_started"} <= {json.loads(line)["event"] for line in first.err.splitlines()}


def test_a_run_that_cannot_begin_is_named_too(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    sink = ["--sink", f"parquet:{tmp_path / 'file'}", "--log-format", "json", "-q"]
    (tmp_path / "file").touch()
    ran = run_cli("export", *cluster, *sink, "--run-id", "r1")
    [event] = [json.loads(line) for line in ran.err.splitlines()]
    assert (ran.exit_code, event["run_id"], event["cluster"]) == (2, "r1", "c1")


@pytest.mark.slow
def test_the_hint_at_another_run_is_a_line_of_this_one(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    from crdbexport.config import ExportConfig
    from crdbexport.pipeline.state import RunRecord, RunState
    from tests.pipeline.test_runs import NOON

    sink = ["--sink", f"parquet:{tmp_path / 'lake'}", "--log-format", "json"]
    run_cli("export", *cluster, *sink, "--run-id", "model")
    state = RunState(tmp_path / "state", "c1", "model")
    model = state.journal.document("run", RunRecord)
    state.close()
    assert model
    assert ExportConfig().run_id is None
    later = RunState(tmp_path / "state", "c1", "half")
    later.begin(RunRecord("c1", "half", NOON.replace(year=2999), NOON.replace(year=2999), model.settings))
    later.answers.keep("question", b"answer")
    later.close()

    events = [json.loads(line) for line in run_cli("export", *cluster, *sink).err.splitlines()]

    [hint] = [each for each in events if each["event"] == "run_unfinished"]
    assert hint["unfinished_run_id"] == "half"
    assert hint["run_id"] == events[-1]["run_id"] != "half"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_ends_the_command_in_silence(
    in_shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    command = "crdbexport export --sandbox --sink jsonl:-"
    ended = in_shell(f"set -o pipefail; {command} | head -n 1 >first; echo $?")
    assert (ended.stdout, ended.stderr) == ("141\n", "")
    assert json.loads((tmp_path / "first").read_text())["stream"] == "databases"

    # What the reader left is no run that anybody wants to go on with.
    again = in_shell(f"{command} >all")
    assert again.returncode == 0
    assert "did not come to its end" not in again.stderr


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_does_not_keep_the_records_from_others(
    in_shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    line = (
        "set -o pipefail; crdbexport export --sandbox --sink jsonl:- --sink parquet:./lake | head -n 1 >first; echo $?"
    )
    ended = in_shell(line)
    assert ended.stdout == "3\n"
    assert "standard output was closed by its reader" in ended.stderr
    assert list((tmp_path / "lake" / "_manifests").iterdir())


def test_a_closed_output_is_told_to_programs_in_the_report(
    run_cli: Run, cluster: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(lines: bytes) -> None:
        from crdbexport.errors import OutputClosedError

        raise OutputClosedError("standard output was closed by its reader")

    monkeypatch.setattr("crdbexport.sinks.jsonl._print", closed)
    report = tmp_path / "report.json"

    ran = run_cli("export", *cluster, "--sink", "jsonl:-", "--report", str(report))

    assert (ran.exit_code, ran.out, ran.err) == (141, "", "")
    told: dict[str, Any] = json.loads(report.read_text())
    assert (told["status"], told["exit_code"]) == ("failed", 141)
    assert told["error"] == "sink jsonl failed: standard output was closed by its reader"
