from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pytest_socket import SocketBlockedError
from record import CASSETTES, EVERY
from replaying import NOWHERE, Replay, no_network, replayed
from scenarios import SCENARIOS
from tape import exchanges, played
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.serializers import yamlserializer

DOCUMENTED = CASSETTES / "documented"
JITTER_SECONDS = 0.25
STATUS = {0: "complete", 3: "incomplete", 4: "failed"}


@pytest.fixture(scope="module", params=EVERY)
def replay(request: pytest.FixtureRequest, play: Callable[[str], Replay]) -> Replay:
    """Each scenario in turn."""
    return play(request.param)


def test_every_exchange_is_played_and_counted(replay: Replay) -> None:
    assert replay.cassette.all_played
    assert replay.report.requests.total == replay.cassette.play_count == len(replay.cassette)


def test_the_run_ends_as_the_scenario_says(replay: Replay) -> None:
    expected, report = replay.scenario.expected, replay.report
    assert (report.exit_code, report.status) == (expected.exit_code, STATUS[expected.exit_code])
    assert report.dialect == replay.scenario.dialect
    assert Counter(report.gaps) == Counter(expected.gaps)
    assert expected.error in (report.error or "")


def test_the_client_logs_in_as_often_as_it_must_and_logs_out_once(replay: Replay) -> None:
    expected = replay.scenario.expected
    assert (replay.asked.count("login/"), replay.asked.count("logout/")) == (expected.logins, expected.logouts)


def test_every_record_of_the_world_is_published_but_those_in_a_gap(replay: Replay) -> None:
    records = replay.scenario.records()
    assert {stream: counts.extracted for stream, counts in replay.report.streams.items()} == records
    assert replay.counted == records


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
    assert not any(replay.counted.values())


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
    cassettes = {path.stem: path.parent.name for path in CASSETTES.rglob("*.yaml")}
    assert cassettes == {name: scenario.form for name, scenario in EVERY.items()}


@pytest.mark.parametrize("name", EVERY)
def test_a_cassette_says_what_it_shows_and_how_it_came_to_be(name: str) -> None:
    comment, _, _ = (CASSETTES / EVERY[name].form / f"{name}.yaml").read_text().partition("interactions:")
    assert comment.startswith(f"# {name}: {EVERY[name].shows}.\n")
    assert "against the sandbox of crdbexport" in comment
    assert f"Record it again: poe record {name}\n" in comment
