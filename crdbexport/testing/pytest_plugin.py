"""What pytest loads by itself: a sandbox for tests, and an account of the checks that do not apply.

Tiny, and without imports but pytest: it is loaded for every project on the interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_APPLICABLE = "Skipped: not applicable: "


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a second or more")


@pytest.fixture
def crdb_sandbox() -> Iterator[str]:
    """The URL of a simulated cluster of a few databases, which serves on loopback until the test ends.

    Its account is `demo`, with the password `demo`.
    """
    from crdbexport.sandbox.app import Sandbox
    from crdbexport.sandbox.server import SandboxServer
    from crdbexport.sandbox.world import World

    with SandboxServer(Sandbox(World(3, 5))) as server:
        yield server.url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what does not apply, with the reason."""
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if reason.startswith(NOT_APPLICABLE):
            terminalreporter.write_line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
