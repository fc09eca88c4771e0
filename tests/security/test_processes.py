"""The command as a process: what others see of it, what it starts, what it imports, and how much memory it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.http import MAX_BODY_BYTES
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Delay, Faults, Rule
from crdbexport.sandbox.world import World
from tests.canaries import PASSWORD, Canaries

Run = Callable[..., Any]
COMMAND = str(Path(sys.executable).parent / "crdbexport")
MEBIBYTE = 2**20
# Modules of the standard library and of others that the command imports early and late.
SHADOWED = ("json", "logging", "ssl", "sqlite3", "httpx", "click", "platformdirs", "sitecustomize")


@pytest.fixture
def in_place(tmp_path: Path) -> Run:
    """Runs a program in the test's directory to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.slow
def test_no_other_user_sees_a_secret_in_the_list_of_processes(
    serve: Run, canaries: Canaries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", PASSWORD)
    slow = Faults(rules=[Rule("/api/v2/databases", Delay(5))])
    url = serve(Sandbox(World(1, 1), faults=slow))
    arguments = ["export", "--url", url, "--cluster", "c1", "--username", "demo", "--sink", "parquet:lake"]
    with subprocess.Popen([COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while not canaries.sessions:  # The login is done, and the list of databases takes its time.
            assert process.poll() is None
            threading.Event().wait(0.02)
        place = Path("/proc") / str(process.pid)
        titles = [path.read_bytes() for path in (place / "cmdline", *place.glob("task/*/comm"))]
        children = [path.read_text() for path in place.glob("task/*/children")]
        process.terminate()
        process.communicate(timeout=20)
    assert titles[0].endswith(b"parquet:lake\0")
    assert len(canaries.sessions) == 1
    canaries.assert_hidden(tmp_path, b"\n".join(titles).decode())
    assert "".join(children) == ""


WATCHED = """
import sys

started = []
sys.addaudithook(lambda event, arguments: started.append(event) if event in WATCHED else None)
WATCHED = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
from crdbexport.cli import main

try:
    main()
finally:
    print(started)
"""


@pytest.mark.slow
def test_no_process_is_started_that_could_inherit_a_secret(in_place: Run, tmp_path: Path) -> None:
    sinks = ["--sink", "parquet:lake", "--sink", "jsonl:lines"]
    told = in_place(sys.executable, "-c", WATCHED, "export", "--sandbox", *sinks)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "[]\n"
    assert (tmp_path / "lake" / "_manifests").is_dir()


@pytest.mark.slow
def test_no_module_of_the_working_directory_is_imported(in_place: Run, tmp_path: Path) -> None:
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.taken').touch()\n")
    ran = in_place(COMMAND, "export", "--sandbox", "--sink", "jsonl:lake")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "lake").is_dir()
    assert not list(tmp_path.glob("*.taken"))
    assert in_place(sys.executable, "-c", "import json").returncode == 0
    assert (tmp_path / "json.taken").exists()


class Bombed(Sandbox):
    """Answers each table of one database with this body."""

    def __init__(self, world: World, body: bytes) -> None:
        super().__init__(world)
        self._body = body
        self.bombs = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/api/v2/databases/bank/tables/"):
            await super().__call__(scope, receive, send)
            return
        self.bombs += 1
        headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def a_bomb(mebibytes: int) -> bytes:
    """What unpacks to so many mebibytes, and is no JSON."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"{") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * mebibytes + packer.flush()


def peak_mebibytes(url: str, place: Path) -> int:
    """The most memory that an export into JSON Lines took, which asked for one thing at a time."""
    place.mkdir()
    command = [COMMAND, "export", "--url", url, "--cluster", "c1", "--username", "demo", "--sink", "jsonl:lake"]
    allowed = ["--allow-gaps", "too_large", "--allow-gaps", "bad_body", "--allow-shrink"]
    process = subprocess.Popen([*command, *allowed, "--concurrency", "1", "-q"], cwd=place)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss // 1024


@pytest.mark.slow
@pytest.mark.parametrize(("mebibytes", "bombs"), [(1024, 8), (60, 40)], ids=["too large", "no JSON"])
def test_no_number_of_bombs_takes_more_memory_than_one_largest_answer(
    serve: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mebibytes: int, bombs: int
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", PASSWORD)
    usual = peak_mebibytes(serve(Sandbox(World(2, 8))), tmp_path / "usual")
    app = Bombed(World(2, 8), a_bomb(mebibytes))
    bombed = peak_mebibytes(serve(app), tmp_path / "bombed")
    assert app.bombs == bombs  # Eight tables; what is broken is asked for five times.
    assert bombed < usual + 1.5 * MAX_BODY_BYTES / MEBIBYTE
