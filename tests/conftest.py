"""What every test has: a clean environment, a sandbox over real HTTP, and exports whose sums are checked."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

import crdbexport
from crdbexport import ExportConfig, RunReport
from crdbexport.config import Secret
from crdbexport.records import GAP_REASONS
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.server import SandboxServer


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine reaches a test, and no state of a test reaches the machine."""
    for name in [name for name in os.environ if name.startswith("CRDBEXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRDBEXPORT_STATE_DIR", str(tmp_path / "state"))
    yield
    logger = logging.getLogger("crdbexport")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


class Serve(Protocol):
    def __call__(self, app: Sandbox) -> str: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves sandboxes on loopback until the test ends; answers the URL."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(SandboxServer(app)).url


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """The settings that most exports share; the password is the sandbox's."""
    return {
        "cluster": "c1",
        "username": "demo",
        "password": Secret("demo"),
        "run_id": "r1",
        "state_dir": tmp_path / "state",
        "sinks": {"lake": {"type": "parquet", "target": str(tmp_path / "lake")}},
    }


@pytest.fixture
def export(settings: dict[str, Any]) -> Callable[..., RunReport]:
    """Exports with the shared settings and whatever a test changes of them, and checks that the report adds up."""

    def run(url: str, *, call: dict[str, Any] | None = None, **changes: Any) -> RunReport:
        report = crdbexport.export(ExportConfig(**{**settings, "url": (url,), **changes}), **(call or {}))
        assert_adds_up(report)
        return report

    return run


def assert_adds_up(report: RunReport) -> None:
    """The sums that every report keeps, whatever became of the run."""
    assert report.objects.details_wanted == report.objects.details_fetched + len(report.gaps)
    assert {gap.reason for gap in report.gaps} <= set(GAP_REASONS)
    for sink in report.sinks:
        assert set(sink.streams) == set(report.streams)
        for name, counts in report.streams.items():
            told = sink.streams[name]
            assert min(told.delivered, told.dead_lettered, told.undelivered) >= 0
            assert counts.extracted == counts.filtered + told.delivered + told.dead_lettered + told.undelivered
            if sink.status == "committed":
                assert told.undelivered == 0


@dataclass(frozen=True)
class Ran:
    """A finished command: its exit code and what it said."""

    exit_code: int
    out: str
    err: str


class RunCli(Protocol):
    def __call__(self, *arguments: str) -> Ran: ...


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> RunCli:
    """Runs the command line in this process, through its outermost door."""
    from crdbexport.cli import main

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["crdbexport", *arguments])
        handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        exit_code = 0
        try:
            main()
        except SystemExit as done:
            exit_code = int(done.code or 0)
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
        sys.stdout.flush()
        sys.stderr.flush()
        captured = capfdbinary.readouterr()
        return Ran(exit_code, captured.out.decode(), captured.err.decode())

    return run
