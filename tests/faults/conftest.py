"""Exports of clusters that misbehave, and what must hold after each of them."""

from __future__ import annotations

import functools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crdbexport
from crdbexport import ExportConfig
from crdbexport.config import Secret
from crdbexport.retry import RetryPolicy
from tests.conftest import assert_adds_up
from tests.faults.fault_server import PASSWORD, USERNAME, FaultServer
from tests.faults.small_world import documented, native, on_the_wire
from tests.faults.suffered import NOW, Suffered, jsonl_records

pytest.register_assert_rewrite("tests.faults.promises")

Export = Callable[..., Suffered]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, without the waits in between, without syncing, without the system's authorities."""
    policy = functools.partial(RetryPolicy, base_seconds=0.001, retry_after_cap_seconds=0.02)
    monkeypatch.setattr("crdbexport.cluster.connect.RetryPolicy", policy)
    monkeypatch.setattr("crdbexport.supervision.POLL_SECONDS", 0.002)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")


@pytest.fixture
def nobody() -> Iterator[socket.socket]:
    """An address that must never be contacted: it listens, and whoever connects stays in its queue."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.fixture
def suffer(
    tmp_path: Path, nobody: socket.socket, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Export:
    """Exports from the server into Parquet and JSON Lines at once; answers all that it left behind."""
    caplog.set_level(logging.DEBUG)

    def run(server: FaultServer, **changes: Any) -> Suffered:
        server.elsewhere = b"127.0.0.1:%d" % nobody.getsockname()[1]
        settings = {"url": (server.url,), **settings_for(tmp_path), **changes}
        started = time.monotonic()
        with server:
            report = crdbexport.export(ExportConfig(**settings), clock=lambda: NOW)
        assert_adds_up(report)
        seconds = time.monotonic() - started
        said = caplog.text + "".join(capfd.readouterr())
        return Suffered(report, server, tmp_path, seconds, said)

    return run


def settings_for(place: Path) -> dict[str, Any]:
    return {
        "cluster": "c1",
        "username": USERNAME,
        "password": Secret(PASSWORD),
        "run_id": "r1",
        "state_dir": place / "state",
        "sinks": {
            "lake": {"type": "parquet", "target": str(place / "lake")},
            "lines": {"type": "jsonl", "target": str(place / "lines")},
        },
    }


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The records of each world when nothing goes wrong, by form and stream."""
    told = {}
    for form in (documented, native):
        place = tmp_path_factory.mktemp(form.__name__)
        with FaultServer(on_the_wire(form())) as server:
            config = ExportConfig(**{"url": (server.url,), **settings_for(place)})
            assert crdbexport.export(config, clock=lambda: NOW).exit_code == 0
        told[form.__name__] = jsonl_records(place / "lines")
        assert all(told[form.__name__].values())
    return told
