from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import record
from native_scenarios import NATIVE
from record import CASSETTES, record_cluster, record_scenario
from scenarios import SCENARIOS
from scrubbing import PLACEHOLDER
from tape import exchanges, played

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.native.table_reply import SENSITIVE
from crdbexport.sandbox.world import World

LOGIN = {"username": "somebody", "password": "correct horse"}


def by_address(path: Path) -> list[dict[str, Any]]:
    """The exchanges by address, in order where there are several: what is asked side by side may overtake."""
    return sorted(exchanges(path), key=lambda each: each["request"]["uri"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_recording_again_gives_the_committed_exchanges(name: str, tmp_path: Path) -> None:
    again = record_scenario(name, tmp_path)
    assert by_address(again) == by_address(CASSETTES / "documented" / again.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
def test_recording_a_native_scenario_again_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    again, committed = record_scenario(name, tmp_path), CASSETTES / "native" / f"{name}.yaml"
    assert below_comment(again) == below_comment(committed)


def below_comment(path: Path) -> bytes:
    """All but the day and the version."""
    _, mark, recorded = path.read_bytes().partition(b"\ninteractions:\n")
    assert mark
    return recorded


@pytest.mark.slow
def test_a_native_cluster_is_recorded_readable_and_without_its_address_and_credentials(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(NativeSandbox(World(databases=1, tables=1), **LOGIN))
    monkeypatch.setenv("CRDBEXPORT_USERNAME", LOGIN["username"])
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", LOGIN["password"])
    path = record_cluster(url, tmp_path)
    text = path.read_text()
    for secret in (*LOGIN.values(), "correct+horse", url.rpartition("//")[2], SENSITIVE, "!!binary", "gzip"):
        assert secret not in text
    bodies = [each["response"]["body"]["string"] for each in exchanges(path)]
    assert f'{{"session":"{PLACEHOLDER}"}}' in bodies
    assert '{"databases":["movr","system"]}' in bodies


@pytest.fixture
def cluster(serve: Any) -> str:
    """The address of something that stands for a real cluster."""
    url: str = serve(Sandbox(World(databases=1, tables=1), **LOGIN))
    return url


@pytest.mark.slow
def test_a_cluster_is_recorded_without_its_address_and_credentials(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_USERNAME", LOGIN["username"])
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", LOGIN["password"])
    path = record_cluster(cluster, tmp_path)
    text = path.read_text()
    assert path.name.endswith("-full_export.yaml")
    assert "against the server of CRDBEXPORT_RECORD_URL, over http.\n" in text
    for secret in (*LOGIN.values(), "correct+horse", cluster.rpartition("//")[2]):
        assert secret not in text
    assert f"username={PLACEHOLDER}&password={PLACEHOLDER}" in text


@pytest.mark.slow
def test_a_session_that_was_brought_is_not_recorded(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = httpx.post(f"{cluster}/api/v2/login/", data=LOGIN).json()["session"]
    monkeypatch.setenv("CRDBEXPORT_SESSION", session)
    path = record_cluster(cluster, tmp_path)
    sent = [each["request"]["headers"].get("x-cockroach-api-session") for each in exchanges(path)]
    assert session not in path.read_text()
    assert [PLACEHOLDER] in sent
    with played(path) as cassette:
        assert len(cassette) == len(sent)


def test_an_export_that_fails_leaves_the_earlier_cassette(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = serve(Sandbox(World(), faults=Faults(rules=[Rule("/api/v2/databases", Status(400))])))
    monkeypatch.setenv("CRDBEXPORT_USERNAME", "demo")
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    monkeypatch.setattr(record, "_today", lambda: "2026-01-31")
    earlier = tmp_path / "2026-01-31-full_export.yaml"
    earlier.write_text("earlier")
    with pytest.raises(RuntimeError, match="ended with exit code 4"):
        record_cluster(broken, tmp_path)
    assert [each.read_text() for each in tmp_path.iterdir() if each.is_file()] == ["earlier"]


def test_an_unknown_scenario_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="unknown: nope; the scenarios are full_export"):
        record.main(["full_export", "nope"])


def test_of_a_cluster_only_the_full_export_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_RECORD_URL", "https://cluster.example")
    with pytest.raises(SystemExit, match="only full_export"):
        record.main(["empty_cluster"])
