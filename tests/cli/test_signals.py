"""Real signals to real processes: a run that is stopped ends soon, in good order, and can be taken up again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

SCRIPTS = Path(sys.executable).parent

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]
SECONDS_TO_END = 10.0

HANGING = """
import pathlib, time

from crdbexport import Sink, SinkConfig, hookimpl


class Hang(Sink):
    class Config(SinkConfig):
        at: str

    def preflight(self):
        self.stop_at("preflight")

    def write(self, batch):
        self.stop_at("write")

    def stop_at(self, method):
        while self.config.at == method:
            pathlib.Path(f"hangs_in_{method}").touch()
            time.sleep(60)


@hookimpl
def crdbexport_register_sinks(register):
    register("hang", Hang)
"""


class Slow(Sandbox):
    """Takes its time for every answer, as long as `delay_seconds` says so."""

    delay_seconds = 0.1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(self.delay_seconds)
        await super().__call__(scope, receive, send)


@dataclass
class Stopped:
    """A process that was sent a signal, and what came of it."""

    process: subprocess.Popen[str]
    sent_at: float
    seconds: float = field(default=0.0, init=False)
    err: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self) -> None:
        _, self.err = self.process.communicate()
        self.seconds = time.monotonic() - self.sent_at

    def ended(self) -> Stopped:
        self._watcher.join(SECONDS_TO_END + 5)
        self.process.kill()
        self._watcher.join()
        return self


def stop(process: subprocess.Popen[str], number: int, *, once: Callable[[], bool]) -> Stopped:
    """Sends the signal once the process has come so far."""
    deadline = time.monotonic() + 20
    while not once() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    assert once()
    process.send_signal(number)
    return Stopped(process, time.monotonic())


Hanging = Callable[[str], Stopped]


@pytest.fixture(scope="module")
def hanging(launch: Start, install: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Hanging:
    """Stops a process with SIGTERM while its sink hangs in a method that never comes back."""
    site = tmp_path_factory.mktemp("site")
    found = install(site, "hanging", HANGING)

    def run(at: str) -> Stopped:
        place = tmp_path_factory.mktemp("hanging")
        state = {"CRDBEXPORT_STATE_DIR": str(place / "state")}
        process = launch(place, "export", "--sandbox", "--sink", f"hang:{at}", **found, **state)
        return stop(process, signal.SIGTERM, once=(place / f"hangs_in_{at}").exists)

    return run


@pytest.fixture(scope="module", autouse=True)
def left_hanging(hanging: Hanging) -> Iterator[list[Stopped]]:
    """Processes that are stopped now and looked at in the end: their seconds of grace pass meanwhile."""
    stopped = [hanging("preflight"), hanging("write")]
    yield stopped
    for each in stopped:
        each.process.kill()
        each.ended()


def manifests(lake: Path) -> list[Path]:
    return list(lake.glob("_manifests/*"))


@dataclass(frozen=True)
class Interrupted:
    """A run that was stopped in its middle."""

    app: Slow
    stopped: Stopped
    place: Path


@pytest.fixture
def interrupted(start: Start, serve: Callable[[Sandbox], str], tmp_path: Path) -> Callable[[int], Interrupted]:
    """Stops an export with a signal while it reads."""

    def run(number: int) -> Interrupted:
        app = Slow(World(2, 30))
        login = ["--cluster", "c1", "--username", "demo", "--concurrency", "2"]
        results = ["--sink", "parquet:./lake", "--report", "report.json"]
        process = start("export", "--url", serve(app), *login, *results)
        return Interrupted(app, stop(process, number, once=lambda: app.hits.total() > 12).ended(), tmp_path)

    return run


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_logs_out_publishes_nothing_and_is_completed_by_the_command_it_prints(
    interrupted: Callable[[int], Interrupted], in_shell: Callable[..., Any], number: int, exit_code: int
) -> None:
    run = interrupted(number)
    assert run.stopped.process.returncode == exit_code
    assert run.stopped.seconds < SECONDS_TO_END
    assert (run.app.logins, run.app.logouts) == (1, 1)
    assert not manifests(run.place / "lake")
    report = json.loads((run.place / "report.json").read_bytes())
    assert (report["status"], report["exit_code"]) == ("interrupted", exit_code)
    assert report["sinks"][0]["status"] == "aborted"
    assert "Traceback" not in run.stopped.err
    command = run.stopped.err.partition("run it again with:\n")[2].strip()
    assert f"--run-id {report['run_id']}" in command
    run.app.delay_seconds = 0.0
    again = in_shell(command)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    assert [path.name for path in manifests(run.place / "lake")] == [f"c1.{report['run_id']}.json"]
    assert json.loads((run.place / "report.json").read_bytes())["status"] == "complete"
    assert (run.app.logins, run.app.logouts) == (2, 2)


def test_a_second_signal_ends_the_process_at_once(hanging: Hanging) -> None:
    stopped = hanging("write")
    time.sleep(0.2)
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.ended().process.returncode == 130
    assert stopped.seconds < 2.0


@pytest.mark.parametrize(
    ("number", "exit_code", "reason"),
    [(signal.SIGINT, 130, "error: stopped\n"), (signal.SIGTERM, 143, "error: stopped by signal 15\n")],
)
def test_a_stopped_check_logs_out(
    start: Start, serve: Callable[[Sandbox], str], number: int, exit_code: int, reason: str
) -> None:
    app = Slow(World(30, 1))
    process = start("check", "--url", serve(app), "--cluster", "c1", "--username", "demo")
    ended = stop(process, number, once=lambda: app.hits.total() > 6).ended()
    assert (ended.process.returncode, ended.err.lstrip()) == (exit_code, reason)
    assert (app.logins, app.logouts) == (1, 1)


def test_a_sink_that_hangs_does_not_hold_the_process(left_hanging: list[Stopped]) -> None:
    before, within = [each.ended() for each in left_hanging]
    assert (before.process.returncode, within.process.returncode) == (143, 143)
    assert max(before.seconds, within.seconds) < SECONDS_TO_END
    assert before.err.endswith("error: stopped by signal 15\n")
    assert "interrupted: " in within.err
    assert "run it again with:" in within.err
    assert "Traceback" not in before.err + within.err


LINGERING = """
import threading, time
from crdbexport import Sink, hookimpl


class Lingering(Sink):
    def open(self):
        threading.Thread(target=time.sleep, args=(60,)).start()

    def write(self, batch):
        pass


@hookimpl
def crdbexport_register_sinks(register):
    register("lingering", Lingering)
"""


@pytest.mark.slow
def test_a_thread_that_a_sink_leaves_behind_does_not_hold_the_process(
    start: Callable[..., subprocess.Popen[str]], installed: Callable[[str, str], dict[str, str]]
) -> None:
    variables = installed("lingering", LINGERING)
    process = start("export", "--sandbox", "--sink", "lingering", **variables)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_a_standard_output_that_nobody_reads_does_not_hold_the_process(tmp_path: Path) -> None:
    options = "--sandbox --sink jsonl:- --sink-option jsonl.timeout_seconds=2"
    # Python's own buffer is what a hanging write keeps locked.
    line = f"(env -u PYTHONUNBUFFERED {SCRIPTS}/crdbexport export {options}; echo $? >ended) | sleep 30"
    reader = subprocess.Popen(["bash", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ended").exists() or not (tmp_path / "ended").read_text():
            assert time.monotonic() < deadline, "the process did not end"
            time.sleep(0.1)
        assert (tmp_path / "ended").read_text() == "5\n"
    finally:
        os.killpg(reader.pid, signal.SIGKILL)
        reader.communicate()
