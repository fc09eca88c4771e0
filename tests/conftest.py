"""What every test has: a clean environment, a sandbox over real HTTP, and exports that are checked.

The password is a canary. After every export and every command it is looked for, with the sessions of the sandbox, in
all that was told and written; what was published is counted again.
"""

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
from tests.canaries import PASSWORD, Canaries
from tests.recounting import assert_recounted


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine reaches a test, and no state of a test reaches the machine."""
    for name in [name for name in os.environ if name.startswith("CRDBEXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRDBEXPORT_STATE_DIR", str(tmp_path / "state"))
    last_resort = logging.lastResort
    yield
    logging.lastResort = last_resort
    logger = logging.getLogger("crdbexport")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def canaries() -> Canaries:
    """The secrets of this test."""
    return Canaries()


class Serve(Protocol):
    def __call__(self, app: Sandbox) -> str: ...


@pytest.fixture
def serve(canaries: Canaries) -> Iterator[Serve]:
    """Serves sandboxes on loopback until the test ends; answers the URL. They take the canary, too."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(SandboxServer(canaries.taught(app))).url


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """The settings that most exports share; the password is the canary."""
    return {
        "cluster": "c1",
        "username": "demo",
        "password": Secret(PASSWORD),
        "run_id": "r1",
        "state_dir": tmp_path / "state",
        "sinks": {"lake": {"type": "parquet", "target": str(tmp_path / "lake")}},
    }


@pytest.fixture
def export(
    settings: dict[str, Any], canaries: Canaries, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., RunReport]:
    """Exports with the shared settings and whatever a test changes of them.

    Checks that the report adds up, that files hold what it says, and that no secret was told or written.
    """

    def run(
        url: str, *, more_urls: tuple[str, ...] = (), call: dict[str, Any] | None = None, **changes: Any
    ) -> RunReport:
        config = ExportConfig(**{**settings, "url": (url, *more_urls), **changes})
        with caplog.at_level(logging.DEBUG, logger="crdbexport"):
            report = crdbexport.export(config, **(call or {}))
        assert_adds_up(report)
        assert_recounted(report)
        own = [each.reveal() for each in (config.password, config.session) if each]
        canaries.assert_hidden(tmp_path, caplog.text + report.to_json().decode(), *own)
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
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], canaries: Canaries, tmp_path: Path
) -> RunCli:
    """Runs the command line in this process, through its outermost door; checks that it told and wrote no secret."""
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
        ran = Ran(exit_code, captured.out.decode(), captured.err.decode())
        canaries.assert_hidden(tmp_path, ran.out + ran.err)
        return ran

    return run
