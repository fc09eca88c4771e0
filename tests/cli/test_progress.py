"""The progress display is for terminals, and so is the question for a password."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.world import World

pytestmark = pytest.mark.slow


def on_terminal(
    arguments: list[str], environment: dict[str, str], place: Path, typed: bytes = b""
) -> tuple[int, str, str]:
    """Runs a command whose keyboard and standard error are a terminal; answers exit code, output and screen."""
    keyboard, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            arguments,
            cwd=place,
            env={**environment, "TERM": "xterm", "COLUMNS": "150"},
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        screen = _watched(keyboard, typed)
        assert process.stdout
        with process, process.stdout as out:
            return process.wait(30), out.read().decode(), screen
    finally:
        os.close(keyboard)


def _watched(keyboard: int, typed: bytes) -> str:
    """What appears on the screen until the process closes it; types an answer to the first question."""
    screen = b""
    while True:
        try:
            screen += os.read(keyboard, 65536)
        except OSError:  # Linux tells the end of a terminal so.
            return screen.decode()
        if typed and screen.rstrip().endswith(b":"):
            os.write(keyboard, typed)
            typed = b""


@pytest.fixture
def slow_cluster(serve: Callable[[Sandbox], str]) -> list[str]:
    url = serve(Sandbox(World(2, 4), latency_seconds=0.03))
    return ["--url", url, "--cluster", "c1", "--username", "demo", "--concurrency", "2"]


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "CRDBEXPORT_PASSWORD": "demo"}


@pytest.fixture
def command(slow_cluster: list[str]) -> list[str]:
    return [str(Path(sys.executable).parent / "crdbexport"), "export", *slow_cluster, "--sink", "lake=parquet:./lake"]


def test_progress_appears_on_a_terminal_and_leaves_the_summary(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    exit_code, out, screen = on_terminal(command, environment, tmp_path)
    assert (exit_code, out) == (0, "")
    assert "reading" in screen
    assert "/2 databases, " in screen
    assert "requests/s" in screen
    assert "of c1: complete in " in screen
    assert "Traceback" not in screen


def test_no_progress_appears_among_events_for_machines(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    exit_code, out, screen = on_terminal([*command, "--log-format", "json"], environment, tmp_path)
    assert (exit_code, out) == (0, "")
    assert len([json.loads(line) for line in screen.splitlines()]) == 4


def test_no_progress_appears_in_a_pipe(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == ""
    assert "reading" not in ran.stderr
    assert "\x1b" not in ran.stderr
    assert "of c1: complete in " in ran.stderr


def test_a_password_is_asked_for_on_a_terminal_and_neither_shown_nor_followed_by_progress_when_quiet(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    del environment["CRDBEXPORT_PASSWORD"]
    exit_code, out, screen = on_terminal([*command, "-q"], environment, tmp_path, typed=b"demo\n")
    assert (exit_code, out) == (0, "")
    assert screen.strip() == "Password for demo:"


def test_without_a_terminal_nobody_is_asked(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    del environment["CRDBEXPORT_PASSWORD"]
    ran = subprocess.run(
        command,
        check=False,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'error: no password for user "demo": set CRDBEXPORT_PASSWORD' in ran.stderr


def test_waiting_for_the_clusters_statistics_is_shown_with_its_progress(
    serve: Callable[[NativeSandbox], str], environment: dict[str, str], tmp_path: Path
) -> None:
    url = serve(NativeSandbox(World(2, 4), quirks=Quirks(cold_cache=True, job_seconds=1.0)))
    command = [str(Path(sys.executable).parent / "crdbexport"), "export", "--url", url, "--cluster", "c1"]
    options = ["--username", "demo", "--refresh-stats", "--sink", "lake=parquet:./lake"]
    exit_code, _, screen = on_terminal([*command, *options], environment, tmp_path)
    assert exit_code == 0
    assert re.search(r"refreshing the cluster's statistics [1-9][0-9] %", screen)
    assert "of c1: complete in " in screen
