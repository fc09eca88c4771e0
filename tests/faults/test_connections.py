"""Clusters that cannot be reached, or cannot prove who they are: nothing is published, no password travels."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.faults.behaviours import RESET, cut_body, no_length_cut, refuses, says
from tests.faults.conftest import Export
from tests.faults.fault_server import Behaviour, FaultServer, Rule
from tests.faults.promises import (
    assert_nothing_lost_but,
    assert_published_as_reported,
    assert_secrets_kept,
    assert_secrets_sent_where_they_belong,
)
from tests.faults.small_world import documented, on_the_wire
from tests.faults.suffered import Suffered

WORLD = on_the_wire(documented())
USERS = "/databases/bank/tables/users"
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
HANDSHAKE_FAILURE, PROTOCOL_VERSION = b"\x15\x03\x03\x00\x02\x02\x28", b"\x15\x03\x03\x00\x02\x02\x46"


def assert_kept_promises(run: Suffered, exit_code: int) -> None:
    assert run.report.exit_code == exit_code, run.report.error
    assert run.seconds < 8
    assert_published_as_reported(run)
    assert_secrets_kept(run)
    assert_secrets_sent_where_they_belong(run.server.requests)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def test_a_port_where_nobody_listens_is_worth_another_try(suffer: Export) -> None:
    run = suffer(FaultServer(WORLD), url=(f"http://127.0.0.1:{closed_port()}",))
    assert_kept_promises(run, 5)
    assert "cannot connect" in (run.report.error or "")
    assert run.report.requests.total <= 5


@pytest.mark.slow
def test_a_port_that_accepts_and_never_answers_is_given_up(suffer: Export) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = suffer(FaultServer(WORLD), url=(f"http://127.0.0.1:{silent.getsockname()[1]}",), timeout=0.1)
    assert_kept_promises(run, 5)
    assert "no whole answer within 0.1 s" in (run.report.error or "")
    assert run.report.requests.total <= 5


def test_a_name_that_no_resolver_knows_is_worth_another_try(suffer: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unknown(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    run = suffer(FaultServer(WORLD), url=("https://crdb.invalid:8080",))
    assert_kept_promises(run, 5)
    assert "https://crdb.invalid:8080: cannot connect" in (run.report.error or "")
    assert set(asked) <= {"crdb.invalid", b"crdb.invalid"}
    assert 1 <= len(asked) <= 5


@pytest.mark.slow
def test_the_second_address_is_read_where_the_first_is_dead(suffer: Export, healthy: dict[str, Any]) -> None:
    server = FaultServer(WORLD)
    run = suffer(server, url=(f"http://127.0.0.1:{closed_port()}", server.url))
    assert_kept_promises(run, 0)
    assert_nothing_lost_but((), run.lines, healthy["documented"])
    assert len(server.requests) == 16


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def over_tls(authority: trustme.CA) -> Callable[..., FaultServer]:
    """A server that shows a certificate of the authority for this name."""

    def serve(name: str = "127.0.0.1", *rules: Rule, not_after: datetime | None = None) -> FaultServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        not_before = LONG_AGO if not_after else None
        authority.issue_cert(name, not_before=not_before, not_after=not_after).configure_cert(context)
        return FaultServer(WORLD, rules, tls=context)

    return serve


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The setting that trusts the authority."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return {"ca_cert": path}


def test_a_certificate_of_an_unknown_authority_ends_the_run_before_a_word(
    suffer: Export, over_tls: Callable[..., FaultServer]
) -> None:
    run = suffer(over_tls())
    assert_kept_promises(run, 4)
    assert "unable to get local issuer certificate; give the cluster's authority" in (run.report.error or "")
    assert (run.report.requests.total, run.server.requests) == (1, [])


def test_an_expired_certificate_ends_the_run_before_a_word(
    suffer: Export, over_tls: Callable[..., FaultServer], trusted: dict[str, Any]
) -> None:
    run = suffer(over_tls(not_after=datetime(2002, 1, 1, tzinfo=UTC)), **trusted)
    assert_kept_promises(run, 4)
    assert "certificate has expired" in (run.report.error or "")
    assert (run.report.requests.total, run.server.requests) == (1, [])


def test_a_certificate_of_another_host_ends_the_run_before_a_word(
    suffer: Export, over_tls: Callable[..., FaultServer], trusted: dict[str, Any]
) -> None:
    run = suffer(over_tls("other.example"), **trusted)
    assert_kept_promises(run, 4)
    assert "not valid for '127.0.0.1'" in (run.report.error or "")
    assert (run.report.requests.total, run.server.requests) == (1, [])


@pytest.mark.parametrize(
    ("greeting", "exit_code"),
    [
        pytest.param(refuses("400 Client sent an HTTPS request"), 4, id="plain http"),
        pytest.param(says(HANDSHAKE_FAILURE), 4, id="handshake refused"),
        pytest.param(says(PROTOCOL_VERSION), 4, id="no common version"),
        pytest.param(says(), 5, id="closed"),
        pytest.param(says(RESET), 5, id="reset"),
    ],
)
def test_a_handshake_that_fails_ends_the_run_before_a_word(suffer: Export, greeting: Behaviour, exit_code: int) -> None:
    server = FaultServer(WORLD, [Rule("connection", [greeting], lasting=True)])
    run = suffer(server, url=(server.url.replace("http:", "https:"),))
    assert_kept_promises(run, exit_code)
    assert 1 <= server.struck["connection"] <= 5
    assert server.requests == []


def test_plain_http_to_a_port_of_tls_sends_no_password(suffer: Export, over_tls: Callable[..., FaultServer]) -> None:
    server = over_tls()
    run = suffer(server, url=(server.url.replace("https:", "http:"),))
    assert_kept_promises(run, 5)
    assert 1 <= run.report.requests.total <= 5
    assert server.requests == []


@pytest.mark.parametrize("fault", [says(RESET), cut_body, no_length_cut])
def test_a_reply_that_is_cut_within_tls_is_asked_for_again(
    suffer: Export,
    over_tls: Callable[..., FaultServer],
    trusted: dict[str, Any],
    healthy: dict[str, Any],
    fault: Behaviour,
) -> None:
    run = suffer(over_tls("127.0.0.1", Rule(USERS, [fault])), **trusted)
    assert_kept_promises(run, 0)
    assert_nothing_lost_but((), run.lines, healthy["documented"])
    assert run.server.struck == {USERS: 1}
    assert len(run.server.requests) == 17


def test_a_redirect_of_a_port_of_tls_to_plain_http_is_refused(
    suffer: Export, over_tls: Callable[..., FaultServer], trusted: dict[str, Any]
) -> None:
    downgrade = refuses("308 Go", "Location: http://{elsewhere}/api/v2/login/")
    run = suffer(over_tls("127.0.0.1", Rule("/login/", [downgrade])), **trusted)
    assert_kept_promises(run, 4)
    assert run.server.struck == {"/login/": 1}


def test_an_address_out_of_the_environment_is_not_used(
    suffer: Export, nobody: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
    run = suffer(FaultServer(WORLD), timeout=2.0)
    assert_kept_promises(run, 0)
    assert not [request for request in run.server.requests if request.header("Authorization")]
