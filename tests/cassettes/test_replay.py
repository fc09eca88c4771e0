from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from pytest_socket import SocketBlockedError, disable_socket, enable_socket
from record import CASSETTES
from scenarios import SCENARIOS, Scenario
from tape import exchanges, export, played, skipped_waits
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.serializers import yamlserializer

from crdbexport import RunReport
from crdbexport.config import Secret
from crdbexport.records import STREAMS

DOCUMENTED = CASSETTES / "documented"
NOWHERE = "http://127.0.0.1:8080"
JITTER_SECONDS = 0.25


class Replay(NamedTuple):
    """An export that was answered by a cassette."""

    scenario: Scenario
    report: RunReport
    cassette: Cassette
    waits: list[float]
    published: dict[str, int]


@contextmanager
def no_network() -> Iterator[None]:
    """No sockets but the pair within the process that an event loop wakes itself with."""
    disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        enable_socket()


def replayed(cassette: Path, workplace: Path, scenario: Scenario) -> Replay:
    credentials: dict[str, Any] = {"username": "anybody", "password": Secret("anything")}
    with no_network(), played(cassette) as tape, skipped_waits() as waits:
        report = export(NOWHERE, workplace, database=scenario.database, **credentials)
    return Replay(scenario, report, tape, waits, lines(workplace / "lake"))


def lines(lake: Path) -> dict[str, int]:
    """How many lines each stream's published files have."""
    files = {stream: (lake / stream).rglob("*.jsonl") for stream in STREAMS}
    return {stream: sum(each.read_bytes().count(b"\n") for each in found) for stream, found in files.items()}


@pytest.fixture(scope="module", params=SCENARIOS)
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """Each scenario in turn, played once for all tests."""
    workplace = tmp_path_factory.mktemp(request.param)
    return replayed(DOCUMENTED / f"{request.param}.yaml", workplace, SCENARIOS[request.param])


def test_every_exchange_is_played_and_counted(replay: Replay) -> None:
    assert replay.cassette.all_played
    assert replay.report.requests.total == replay.cassette.play_count == len(replay.cassette)


def test_the_run_ends_as_the_scenario_says(replay: Replay) -> None:
    expected = replay.scenario.expected
    assert replay.report.exit_code == expected.exit_code
    assert replay.report.status == ("incomplete" if expected.exit_code else "complete")
    assert Counter(replay.report.gaps) == Counter(expected.gaps)


def test_the_client_logs_in_as_often_as_it_must_and_logs_out_once(replay: Replay) -> None:
    asked = Counter(request.uri.rpartition("/api/v2/")[2] for request in replay.cassette.requests)
    assert (asked["login/"], asked["logout/"]) == (replay.scenario.expected.logins, 1)


def test_every_record_of_the_world_is_published_but_those_in_a_gap(replay: Replay) -> None:
    records = replay.scenario.records()
    assert {stream: counts.extracted for stream, counts in replay.report.streams.items()} == records
    assert replay.published == records


def test_each_retry_waits_as_long_as_the_server_asks(replay: Replay) -> None:
    expected = replay.scenario.expected
    asked = [seconds for seconds in replay.waits if seconds >= expected.retry_after]
    assert replay.report.requests.retried == len(asked) == expected.retried
    if expected.retry_after:
        assert max(asked) <= expected.retry_after + JITTER_SECONDS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "health"),
        ("POST", "login/"),
        ("GET", "databases"),
        ("GET", "databases/movr/grants"),
        ("GET", "databases/movr/tables/rides"),
        ("POST", "logout/"),
    ],
)
def test_a_request_that_was_not_recorded_ends_the_run(method: str, path: str, tmp_path: Path) -> None:
    scenario = SCENARIOS["full_export"]
    replay = replayed(without(DOCUMENTED / "full_export.yaml", path, tmp_path), tmp_path, scenario)
    assert (replay.report.status, replay.report.exit_code) == ("failed", 1)
    assert (replay.report.gaps, replay.report.requests.retried) == ((), 0)
    assert replay.report.error is not None
    assert replay.report.error.startswith(CannotOverwriteExistingCassetteException.__name__)
    assert f" {method} {NOWHERE}/api/v2/{path} " in replay.report.error
    assert not any(replay.published.values())


def without(cassette: Path, path: str, workplace: Path) -> Path:
    """A copy of a cassette that lacks the exchanges at one path."""
    recorded = exchanges(cassette)
    kept = [each for each in recorded if not each["request"]["uri"].endswith(f"/api/v2/{path}")]
    assert len(kept) == len(recorded) - 1
    copy = workplace / "cut.yaml"
    copy.write_text(yamlserializer.serialize({"version": 1, "interactions": kept}))
    return copy


def test_an_exchange_is_played_once() -> None:
    with no_network(), played(DOCUMENTED / "empty_cluster.yaml") as cassette, httpx.Client() as client:
        assert client.get(f"{NOWHERE}/api/v2/health").status_code == 200
        with pytest.raises(CannotOverwriteExistingCassetteException, match="already been played"):
            client.get(f"{NOWHERE}/api/v2/health")
        assert not cassette.all_played


def test_a_replay_reaches_no_network() -> None:
    with no_network(), pytest.warns(UserWarning), pytest.raises(SocketBlockedError):
        socket.create_connection(("127.0.0.1", 8080))


def test_every_scenario_has_a_cassette_and_every_cassette_a_scenario() -> None:
    assert {path.stem for path in DOCUMENTED.iterdir()} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cassette_says_what_it_shows_and_how_it_came_to_be(name: str) -> None:
    comment, _, _ = (DOCUMENTED / f"{name}.yaml").read_text().partition("interactions:")
    assert comment.startswith(f"# {name}: {SCENARIOS[name].shows}.\n")
    assert "against the sandbox of crdbexport" in comment
    assert f"Record it again: poe record {name}\n" in comment
