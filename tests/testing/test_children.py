"""Processes of their own: what they have, what they do not have, and that none stays."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crdbexport.config import Secret
from crdbexport.plugin_files import imported_file
from crdbexport.testing.check import CheckFailedError
from crdbexport.testing.children import in_child

SECONDS = 20.0

CURIOUS = """
import os, sys, threading

def told():
    task = "/proc/self/task"
    threads = len(os.listdir(task)) if os.path.isdir(task) else threading.active_count()
    place = {"directory": os.getcwd(), "environment": dict(os.environ)}
    return {"modules": sorted(sys.modules), "threads": threads, **place}
"""


class Defined:
    """Stands in a test module, which no other process finds by its name."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> dict[str, Any]:
        return {"value": self.value.reveal() if isinstance(self.value, Secret) else self.value}


def fail() -> dict[str, Any]:
    raise ValueError("no")


def find_out_something() -> dict[str, Any]:
    raise CheckFailedError("the sink is wrong")


def hang(note: Path) -> dict[str, Any]:
    inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note.with_suffix(".part").write_text(f"{os.getpid()} {inner.pid} {os.getppid()}")
    note.with_suffix(".part").rename(note)
    threading.Event().wait()
    return {}


def die() -> dict[str, Any]:
    os.kill(os.getpid(), 9)
    return {}


def is_gone(process: int) -> bool:
    """Whether a process is over; one that nobody waits for may stay as an entry."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"


def all_gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not all(map(is_gone, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def curious(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """A function of a plugin of one file, which tells of the process that calls it."""
    path = tmp_path / "curious.py"
    path.write_text(CURIOUS)
    told: Callable[[], dict[str, Any]] = imported_file(path).told
    return told


def test_a_child_answers() -> None:
    end = in_child(Defined(2), SECONDS)
    assert (end.killed, end.answer) == (False, {"value": 2})


def test_a_child_that_is_killed_is_told_apart() -> None:
    end = in_child(die, SECONDS)
    assert (end.killed, end.answer) == (True, {})


def test_a_child_that_fails_says_how() -> None:
    with pytest.raises(CheckFailedError, match=r"^ValueError: no$"):
        in_child(fail, SECONDS)


def test_what_a_child_finds_is_told_in_its_own_words() -> None:
    with pytest.raises(CheckFailedError, match=r"^the sink is wrong$"):
        in_child(find_out_something, SECONDS)


def test_a_secret_reaches_a_child_and_no_list_of_processes() -> None:
    assert in_child(Defined(Secret("canary")), SECONDS).answer == {"value": "canary"}
    commands = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.is_dir())
    assert b"crdbexport.testing.fork_server" in commands
    assert b"canary" not in commands


def test_a_child_has_the_environment_the_directory_and_the_module_path_of_now(
    curious: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "canary")
    answer = in_child(curious, SECONDS).answer
    assert answer["directory"] == str(tmp_path)
    assert answer["environment"] == dict(os.environ)
    assert not list(tmp_path.glob("**/*.pyc"))


def test_a_child_has_nothing_of_this_process_but_the_kit(curious: Callable[[], dict[str, Any]]) -> None:
    import obstore
    from obstore.store import MemoryStore

    obstore.put(MemoryStore(), "a", b"its threads run from now on")
    answer = in_child(curious, SECONDS).answer
    assert answer["threads"] == 1
    assert {"crdbexport.testing.delivery", "pyarrow.parquet"} <= set(answer["modules"])
    sinks = [name for name in answer["modules"] if name.startswith(("crdbexport_", "crdbexport.sinks."))]
    assert sinks == ["crdbexport.sinks.base", "crdbexport.sinks.json_lines"]  # The latter writes dead letters.
    roots = {name.partition(".")[0] for name in answer["modules"]}
    assert not roots & {"duckdb", "deltalake", "obstore", "pyiceberg", "adbc_driver_manager", "pytest", "httpx"}


def test_what_another_process_cannot_find_is_refused_with_the_remedy() -> None:
    class Local(Defined):
        pass

    with pytest.raises(CheckFailedError, match=r"Local.*define its class at the top level of a module"):
        in_child(Local(1), SECONDS)
    with pytest.raises(CheckFailedError, match=r"lock.*let its Config hold plain values only"):
        in_child(Defined(threading.Lock()), SECONDS)


@pytest.mark.slow
def test_a_child_that_hangs_is_ended_with_all_that_it_started_and_the_next_one_works(tmp_path: Path) -> None:
    assert not in_child(Defined(1), SECONDS).killed
    with pytest.raises(CheckFailedError, match=r"did not end within 0\.5 s"):
        in_child(partial(hang, tmp_path / "note"), 0.5)
    assert all_gone([int(each) for each in (tmp_path / "note").read_text().split()])
    assert in_child(Defined(1), SECONDS).answer == {"value": 1}


@pytest.mark.slow
def test_no_process_stays_when_this_one_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(
        textwrap.dedent("""
        import sys
        from functools import partial
        from pathlib import Path
        from crdbexport.testing.children import in_child
        from tests.testing.test_children import hang
        in_child(partial(hang, Path(sys.argv[1])), 60)
        """)
    )
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(note)], env=environment) as parent:
        while not note.exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.kill()
    assert all_gone([int(each) for each in note.read_text().split()])
