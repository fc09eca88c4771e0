"""Clusters that refuse, fail, or are none: an exit code that says what to do, a line that says why, nothing more."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.world import World

pytestmark = pytest.mark.usefixtures("quick_retries")

HTML = Body(b"<!doctype html><title>Sign in</title>", "text/html")
Refused = Callable[..., str]
Arguments = Callable[..., list[str]]
Faulty = Callable[..., str]


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def test_a_wrong_password_is_refused_for_good(
    serve: Callable[[Sandbox], str], refused: Refused, arguments: Arguments
) -> None:
    app = Sandbox(World(1, 1), password="another")
    reason = refused(4, *arguments(serve(app)))
    assert 'login refused for user "demo"' in reason
    assert "check the password" in reason
    assert (app.logins, app.logouts) == (0, 0)
    assert app.hits["/api/v2/login/"] == 1


def test_an_unreachable_host_is_worth_another_try(refused: Refused, arguments: Arguments) -> None:
    reason = refused(5, *arguments(f"http://127.0.0.1:{closed_port()}"))
    assert "cannot connect" in reason
    assert "check --url" in reason


def test_a_failing_login_is_worth_another_try(
    serve: Callable[[Sandbox], str], refused: Refused, arguments: Arguments
) -> None:
    app = Sandbox(World(1, 1), faults=Faults(rules=[Rule("/api/v2/login/", Status(503))]))
    assert "answered 503" in refused(5, *arguments(serve(app)))
    assert app.hits["/api/v2/login/"] == 5


def test_html_where_health_should_be_is_not_a_cluster(faulty: Faulty, refused: Refused, arguments: Arguments) -> None:
    assert "answered HTML, not JSON; is it a CockroachDB node" in refused(4, *arguments(faulty(health=HTML)))


def test_html_where_databases_should_be_is_not_a_cluster(
    faulty: Faulty, refused: Refused, arguments: Arguments
) -> None:
    assert "GET databases answered HTML, not JSON" in refused(4, *arguments(faulty(databases=HTML)))


def test_a_server_that_knows_no_endpoint_is_not_a_cluster(
    faulty: Faulty, refused: Refused, arguments: Arguments
) -> None:
    reason = refused(4, *arguments(faulty(everything=Status(404))))
    assert "POST login/ answered 404" in reason
    assert "is this the HTTP address of a CockroachDB node?" in reason


def test_the_native_form_is_refused_with_a_hint_where_the_documented_one_is_forced(
    faulty: Faulty, refused: Refused, arguments: Arguments
) -> None:
    native = Body(json.dumps({"databases": ["movr", "bank"], "next": 2}).encode())
    reason = refused(4, *arguments(faulty(databases=native), "--dialect", "documented"))
    assert "the server answers in the native form; leave --dialect out" in reason


def test_a_redirect_is_refused_and_not_followed(
    serve: Callable[[Sandbox], str], refused: Refused, arguments: Arguments
) -> None:
    elsewhere = Sandbox(World(1, 1))
    target = serve(elsewhere)
    redirect = Rule("/api/v2/login/", Status(307, {"location": f"{target}/api/v2/login/"}))
    reason = refused(4, *arguments(serve(Sandbox(World(1, 1), faults=Faults(rules=[redirect])))))
    assert f"a redirect to {target}" in reason
    assert elsewhere.hits.total() == 0


def test_a_literal_database_that_does_not_exist_is_a_mistake(
    serve: Callable[[Sandbox], str], refused: Refused, arguments: Arguments
) -> None:
    app = Sandbox(World(2, 1), password="s3cret-canary")
    reason = refused(2, *arguments(serve(app), "--database", "no\nsuch"))
    assert r'--database "no\nsuch" matches none of the databases' in reason
    assert (app.logins, app.logouts) == (1, 1)


def test_a_session_of_the_environment_that_is_refused_says_where_it_came_from(
    serve: Callable[[Sandbox], str], refused: Refused, monkeypatch: pytest.MonkeyPatch, lake: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_SESSION", "s3cret-canary")
    app = Sandbox(World(1, 1))
    reason = refused(4, "export", "--url", serve(app), "--cluster", "c1", "--sink", f"parquet:{lake}")
    assert "the session of CRDBEXPORT_SESSION was refused (401)" in reason
    assert app.logouts == 0


@pytest.mark.slow
def test_gaps_make_a_run_incomplete_unless_they_are_allowed(
    serve: Callable[[Sandbox], str], run_cli: Callable[..., Any], arguments: Arguments, tmp_path: Path
) -> None:
    forbidden = Rule("/api/v2/databases/bank/grants", Status(403))
    url = serve(Sandbox(World(2, 2), password="s3cret-canary", faults=Faults(rules=[forbidden])))
    ran = run_cli(*arguments(url, sink=f"parquet:{tmp_path / 'first'}"))
    assert (ran.exit_code, ran.out) == (3, "")
    assert "1 gap: forbidden" in ran.err
    assert "add for the next run: --allow-gaps forbidden" in ran.err
    [manifest] = (tmp_path / "first/_manifests").iterdir()
    assert json.loads(manifest.read_bytes())["complete"] is False
    ran = run_cli(*arguments(url, "--allow-gaps", "forbidden", sink=f"parquet:{tmp_path / 'second'}"))
    assert (ran.exit_code, ran.out) == (0, "")
    [manifest] = (tmp_path / "second/_manifests").iterdir()
    assert json.loads(manifest.read_bytes())["complete"] is True
    assert forbidden.fired == 2
