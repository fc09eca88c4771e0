"""Exports that a cassette answers: no network, no waiting, and all that came of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pytest_socket import disable_socket, enable_socket
from scenarios import Scenario
from tape import export, played, skipped_waits
from vcr.cassette import Cassette

from crdbexport import RunReport
from crdbexport.config import Secret
from crdbexport.records import STREAMS

NOWHERE = "http://127.0.0.1:8080"

Records = dict[str, list[dict[str, Any]]]


class Replay(NamedTuple):
    """An export that was answered by a cassette."""

    scenario: Scenario
    report: RunReport
    cassette: Cassette
    waits: list[float]
    published: Records

    @property
    def asked(self) -> list[str]:
        """The requests in the order of the cassette, without the part of the address that all share."""
        return [request.uri.rpartition("/api/v2/")[2] for request in self.cassette.requests]

    @property
    def counted(self) -> dict[str, int]:
        """How many records of each stream were published."""
        return {stream: len(records) for stream, records in self.published.items()}


@contextmanager
def no_network() -> Iterator[None]:
    """No sockets but the pair within the process that an event loop wakes itself with."""
    disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        enable_socket()


def replayed(cassette: Path, workplace: Path, scenario: Scenario) -> Replay:
    """The export that a scenario's cassette answers; credentials that the recorded ones do not resemble."""
    account: dict[str, Any] = {"username": "anybody", "password": Secret("anything")}
    account = account if scenario.login else {"no_login": True}
    with no_network(), played(cassette) as tape, skipped_waits() as waits:
        report = export(NOWHERE, workplace, database=scenario.database, **account)
    return Replay(scenario, report, tape, waits, published(workplace / "lake"))


def published(lake: Path) -> Records:
    """The records of each stream, as they stand in its files."""
    files = {stream: sorted((lake / stream).rglob("*.jsonl")) for stream in STREAMS}
    return {
        stream: [json.loads(line) for each in found for line in each.read_bytes().splitlines()]
        for stream, found in files.items()
    }
