"""`crdbexport runs`: what it tells of runs, what it delivers, and what it clears away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crdbexport.pipeline.state import RunState
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World
from tests.conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def export(run_cli: Run, cluster: list[str], tmp_path: Path) -> Callable[..., Ran]:
    """Exports into ./lake under a run id."""

    def run(run_id: str, *more: str, sink: str = "") -> Ran:
        return run_cli("export", *cluster, "--run-id", run_id, "--sink", sink or f"parquet:{tmp_path / 'lake'}", *more)

    return run


@pytest.fixture
def cut_short(
    run_cli: Run, serve: Callable[[Sandbox], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ran]:
    """An export that ends with exit code 4 after it has read a part of the cluster."""

    def run(*more: str) -> Ran:
        monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
        redirect = Rule("/api/v2/databases/movr/tables/.*", Status(302))
        url = serve(Sandbox(World(2, 2), faults=Faults(rules=[redirect])))
        login = ["--url", url, "--cluster", "c1", "--username", "demo"]
        return run_cli("export", *login, "--sink", f"jsonl:{tmp_path / 'half'}", *more)

    return run


def manifests(lake: Path) -> list[str]:
    return sorted(path.name for path in (lake / "_manifests").iterdir())


@pytest.mark.slow
def test_runs_are_listed_with_what_became_of_them(
    run_cli: Run, export: Callable[..., Ran], cut_short: Callable[..., Ran]
) -> None:
    export("r 1")
    assert cut_short("--run-id", "r2").exit_code == 4

    ran = run_cli("runs", "list")

    assert (ran.exit_code, ran.err) == (0, "")
    first, second = (re.split(" {2,}", line) for line in ran.out.splitlines())
    assert first[1:4] == ["complete", "c1", "r 1"]
    assert re.fullmatch(r"\d+ records", first[4])
    assert second[1:4] == ["failed", "c1", "r2"]
    assert re.fullmatch(r"\d+ records, keeps 0\.\d MiB", second[4])


@pytest.mark.slow
def test_a_list_for_programs_is_one_document(run_cli: Run, export: Callable[..., Ran], tmp_path: Path) -> None:
    export("r1", "--keep-spool")
    [run] = json.loads(run_cli("runs", "list", "--json").out)
    assert (run["cluster"], run["run_id"], run["status"], run["exit_code"]) == ("c1", "r1", "complete", 0)
    assert (run["resumable"], run["deliverable"], run["sinks"]) == (False, True, {"parquet": "committed"})
    assert run["directory"] == str(tmp_path / "state" / "runs" / "c1.r1")
    assert json.loads(run_cli("runs", "show", "r1", "--json").out) == run


def test_an_empty_state_directory_is_said_to_be(run_cli: Run, tmp_path: Path) -> None:
    ran = run_cli("runs", "list", "--state-dir", str(tmp_path / "nowhere"))
    assert (ran.exit_code, ran.out, ran.err) == (0, "", f"no runs in {tmp_path / 'nowhere'}\n")
    assert json.loads(run_cli("runs", "list", "--json").out) == []


@pytest.mark.slow
def test_runs_of_another_cluster_are_left_out_on_demand(run_cli: Run, export: Callable[..., Ran]) -> None:
    export("r1")
    assert run_cli("runs", "list", "--cluster", "c1").out
    assert run_cli("runs", "list", "--cluster", "c2").out == ""


@pytest.mark.slow
def test_a_run_is_shown_with_the_way_on(
    run_cli: Run, export: Callable[..., Ran], cut_short: Callable[..., Ran], tmp_path: Path
) -> None:
    export("kept one", "--keep-spool")
    cut_short("--run-id", "half")

    kept, half = run_cli("runs", "show", "kept one").out, run_cli("runs", "show", "half").out

    assert "status         complete, exit code 0\n" in kept
    assert "sink           parquet: committed\n" in kept
    assert f"state          {tmp_path / 'state' / 'runs' / 'c1.kept%20one'} (" in kept
    assert kept.endswith("next           crdbexport runs deliver 'kept one' --sink TYPE:TARGET\n")
    assert half.endswith("the same crdbexport export command with --run-id half goes on where it stopped\n")


@pytest.mark.slow
def test_a_run_at_work_is_shown_as_running(run_cli: Run, export: Callable[..., Ran], tmp_path: Path) -> None:
    export("r1")
    with closing(RunState(tmp_path / "state", "c1", "r1")):
        assert "  running      c1  r1  " in run_cli("runs", "list").out


@pytest.mark.parametrize("command", [["show", "r9"], ["deliver", "r9", "--sink", "jsonl:-"]], ids=["show", "deliver"])
def test_a_run_that_is_not_known_is_exit_2(run_cli: Run, command: list[str]) -> None:
    ran = run_cli("runs", *command)
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err.startswith('error: no run "r9" is known in ')


@pytest.mark.slow
def test_a_journal_that_cannot_be_read_is_warned_about_and_hides_no_run(
    run_cli: Run, export: Callable[..., Ran], tmp_path: Path
) -> None:
    export("r1")
    export("r2")
    (tmp_path / "state" / "runs" / "c1.r1" / "journal.db").write_bytes(b"nothing of the kind" * 300)

    ran = run_cli("runs", "list")

    assert ran.exit_code == 0
    assert [re.split(" {2,}", line)[3] for line in ran.out.splitlines()] == ["r2"]
    assert ran.err.startswith("warning: ")
    assert "c1.r1/journal.db: damaged" in ran.err


@pytest.mark.slow
def test_a_kept_run_is_delivered_to_a_sink_that_comes_later(
    run_cli: Run, export: Callable[..., Ran], app: Sandbox, tmp_path: Path
) -> None:
    export("r1", "--keep-spool")
    asked = app.hits.total()

    ran = run_cli("runs", "deliver", "r1", "--sink", f"late=jsonl:{tmp_path / 'lines'}", "--report", "-")

    assert ran.exit_code == 0, ran.err
    report = json.loads(ran.out)
    assert [(sink["name"], sink["status"]) for sink in report["sinks"]] == [
        ("parquet", "committed"),
        ("late", "committed"),
    ]
    assert "sink late" in ran.err
    assert manifests(tmp_path / "lines") == ["c1.r1.json"]
    assert app.hits.total() == asked


@pytest.mark.slow
def test_a_run_that_keeps_nothing_is_exit_2(run_cli: Run, export: Callable[..., Ran], tmp_path: Path) -> None:
    export("r1")
    ran = run_cli("runs", "deliver", "r1", "--sink", f"late=jsonl:{tmp_path / 'lines'}")
    assert ran.exit_code == 2
    assert "is delivered and keeps no records; export with --keep-spool" in ran.err


@pytest.mark.slow
def test_letters_that_nobody_refused_are_exit_2(run_cli: Run, export: Callable[..., Ran], tmp_path: Path) -> None:
    export("r1", "--keep-spool")
    ran = run_cli("runs", "deliver", "r1", "--dead-letters", "--sink", f"parquet:{tmp_path / 'lake'}")
    assert (ran.exit_code, ran.err) == (2, 'error: sink parquet has no dead letters of run "r1"\n')


@pytest.mark.slow
def test_an_unfinished_run_is_pointed_out_to_whoever_gives_no_run_id(
    run_cli: Run, export: Callable[..., Ran], cut_short: Callable[..., Ran], cluster: list[str], tmp_path: Path
) -> None:
    cut_short("--run-id", "half")
    sink = ["--sink", f"parquet:{tmp_path / 'lake'}"]

    ran = run_cli("export", *cluster, *sink)
    assert ran.exit_code == 0
    assert "warning: run half of this cluster did not come to its end; the same command with --run-id half" in ran.err

    assert "did not come to its end" not in run_cli("export", *cluster, *sink).err


@pytest.mark.slow
def test_nothing_is_cleared_away_where_there_is_no_litter(
    run_cli: Run, export: Callable[..., Ran], tmp_path: Path
) -> None:
    export("r1")
    ran = run_cli("runs", "gc", str(tmp_path / "lake"))
    assert (ran.exit_code, ran.out, ran.err) == (0, "", "")
    assert manifests(tmp_path / "lake") == ["c1.r1.json"]


@pytest.mark.slow
def test_litter_goes_from_the_state_and_from_each_lake(
    run_cli: Run, export: Callable[..., Ran], cut_short: Callable[..., Ran], tmp_path: Path
) -> None:
    export("r1")
    cut_short("--run-id", "half")
    spool = tmp_path / "state" / "runs" / "c1.half" / "spool"
    spool.mkdir()
    day = next((tmp_path / "lake" / "tables").iterdir())
    stray, strange = day / "c1.r0.parquet", day / "README.txt"
    stray.touch()
    strange.touch()
    gc = ["runs", "gc", str(tmp_path / "lake")]

    planned = run_cli(*gc, "--dry-run")
    assert planned.out == f"would remove {spool}\nwould remove {stray}\n"
    assert spool.exists()
    assert stray.exists()

    ran = run_cli(*gc)
    assert (ran.exit_code, ran.out) == (0, f"removed {spool}\nremoved {stray}\n")
    assert not spool.exists()
    assert not stray.exists()
    assert strange.exists()
    assert run_cli(*gc).out == ""
    assert [run["resumable"] for run in json.loads(run_cli("runs", "list", "--json").out)] == [False, True]


@pytest.mark.slow
def test_old_snapshots_and_the_state_of_old_runs_go_on_demand(
    run_cli: Run, export: Callable[..., Ran], tmp_path: Path
) -> None:
    for day in (1, 2, 3):
        export(f"r{day}", "--logical-time", f"2026-01-0{day}")
    gc = ["runs", "gc", "--keep", "2", str(tmp_path / "lake")]
    told = [
        f"{tmp_path / 'state' / 'runs' / 'c1.r1'}",
        f"run r1 of c1 (2026-01-01) from {tmp_path / 'lake'}",
    ]

    assert run_cli(*gc, "--dry-run").out.splitlines() == [f"would remove {each}" for each in told]
    assert manifests(tmp_path / "lake") == ["c1.r1.json", "c1.r2.json", "c1.r3.json"]

    assert run_cli(*gc).out.splitlines() == [f"removed {each}" for each in told]
    assert manifests(tmp_path / "lake") == ["c1.r2.json", "c1.r3.json"]
    assert [run["run_id"] for run in json.loads(run_cli("runs", "list", "--json").out)] == ["r2", "r3"]
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 12


@pytest.mark.slow
def test_a_directory_that_is_no_lake_is_exit_2_and_nothing_is_removed(
    run_cli: Run, export: Callable[..., Ran], tmp_path: Path
) -> None:
    for day in (1, 2):
        export(f"r{day}", "--logical-time", f"2026-01-0{day}")
    (tmp_path / "other").mkdir()

    ran = run_cli("runs", "gc", "--keep", "1", str(tmp_path / "lake"), str(tmp_path / "other"))

    assert (ran.exit_code, ran.out) == (2, "")
    assert "other: nothing was published here" in ran.err
    assert manifests(tmp_path / "lake") == ["c1.r1.json", "c1.r2.json"]
    assert len(json.loads(run_cli("runs", "list", "--json").out)) == 2


@pytest.mark.parametrize("arguments", [["--keep", "0"], ["/no/such/directory"]], ids=" ".join)
def test_what_cannot_be_meant_is_exit_2(run_cli: Run, arguments: list[str]) -> None:
    assert run_cli("runs", "gc", *arguments).exit_code == 2


@pytest.mark.slow
def test_names_of_runs_play_no_tricks_on_a_terminal(
    run_cli: Run, export: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export("a\x1b[31m\nb", "--keep-spool")
    shown: list[Any] = [
        run_cli("runs", "list").out,
        run_cli("runs", "show", "a\x1b[31m\nb").out,
        run_cli("runs", "show", "x\x1b[31m").err,
    ]
    assert all(shown)
    assert not [each for each in shown if "\x1b" in each]
