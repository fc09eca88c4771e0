"""Processes that are killed in a commit, have no room, or commit at once; each is a real one of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STREAMS = ("databases", "tables")
KILLS = 10
ROWS = 3


def begin(mode: str, root: Path, run: int, *fault: object, rows: int = ROWS) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("delivering.py")), mode, root, run, rows, *fault]
    return subprocess.Popen([str(each) for each in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def deliver(mode: str, root: Path, run: int, *fault: object, rows: int = ROWS) -> tuple[int, str]:
    with begin(mode, root, run, *fault, rows=rows) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def counts(root: Path, stream: str) -> dict[str, int]:
    if not (root / stream / "_delta_log").is_dir():
        return {}
    return dict(Counter(pa.table(DeltaTable(root / stream).scan(columns=["run_id"])).column(0).to_pylist()))


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_process_killed_anywhere_in_its_commit_leaves_whole_streams_or_nothing(tmp_path: Path, mode: str) -> None:
    code, told = deliver(mode, tmp_path / "counting", 1)
    assert code == 0, told
    points = range(2, int(told) + 1, max(1, int(told) // KILLS))
    assert len(points) >= KILLS
    seen = set()
    for at in points:
        root = tmp_path / str(at) / "lake"
        assert deliver(mode, root, 0)[0] == 0
        assert deliver(mode, root, 1, "kill", at)[0] == -signal.SIGKILL
        for stream in STREAMS:
            found = counts(root, stream)
            seen.add(tuple(found.items()))
            assert found in ({"r0": ROWS}, {"r1": ROWS} if mode == "merge" else {"r0": ROWS, "r1": ROWS})
        assert deliver(mode, root, 1)[0] == 0
        whole = {"r1": ROWS} if mode == "merge" else {"r0": ROWS, "r1": ROWS}
        assert [counts(root, stream) for stream in STREAMS] == [whole] * 2
        assert not any((root.parent / "staging").iterdir())
    assert len(seen) == 2, "the kills were all before, or all after the commit"


def test_a_disk_without_room_fails_the_commit_and_later_it_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    assert deliver("append", root, 1)[0] == 0
    for room in (4096, 1000, 0):
        code, told = deliver("append", root, 2, "room", room, rows=2000)
        assert code == 1, told
        assert "SinkError" in told
        assert counts(root, "databases") == {"r1": ROWS}
    assert deliver("append", root, 2, rows=2000)[0] == 0
    assert counts(root, "databases") == {"r1": ROWS, "r2": 2000}


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_processes_that_deliver_the_same_run_at_once_deliver_it_once(tmp_path: Path, mode: str) -> None:
    for attempt in range(3):
        root = tmp_path / str(attempt)
        at_once = time.time() + 3
        processes = [begin(mode, root, 1, "at", at_once) for _ in range(4)]
        told = [each.communicate(timeout=60) for each in processes]
        assert [each.returncode for each in processes] == [0] * 4, told
        assert [counts(root, stream) for stream in STREAMS] == [{"r1": ROWS}] * 2


def test_runs_that_are_delivered_at_once_are_all_kept(tmp_path: Path) -> None:
    at_once = time.time() + 3
    processes = [begin("append", tmp_path / "lake", run, "at", at_once) for run in range(4)]
    told = [each.communicate(timeout=60) for each in processes]
    assert [each.returncode for each in processes] == [0] * 4, told
    assert counts(tmp_path / "lake", "tables") == {f"r{run}": ROWS for run in range(4)}
