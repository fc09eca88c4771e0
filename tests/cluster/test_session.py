from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from crdbexport.cluster.dialects.native import listed_databases
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.session import Session
from crdbexport.config import Secret
from crdbexport.errors import (
    AuthenticationError,
    ClusterUnavailableError,
    ConfigError,
    RedirectRefusedError,
    UnexpectedServerError,
    UnreadableError,
)
from crdbexport.report import RequestCounts
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Delay, Expire, Rule, Status
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.world import World

Serve = Callable[[Sandbox], str]

DATABASES = Endpoint("GET", ("databases",))
LOGIN, LOGOUT, HEALTH, LIST = "/api/v2/login/", "/api/v2/logout/", "/api/v2/health", "/api/v2/databases"
HTML = b"<!doctype html><html>Welcome, please log in</html>"
REQUESTS_AT_ONCE = 12


async def list_databases(session: Session) -> bytes:
    return await session.get(DATABASES, bytes)


async def nothing(session: Session) -> None:
    pass


def token_of(url: str) -> Secret:
    """A session that somebody else has made."""
    answer = httpx.post(f"{url}{LOGIN}", data={"username": "demo", "password": "demo"}, trust_env=False, verify=False)
    return Secret(answer.json()["session"])


def test_a_session_is_one_login_and_one_logout(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()

    async def work(session: Session) -> None:
        for _ in range(3):
            await list_databases(session)

    in_session(serve(app), work)
    assert app.paths == ["health", "login/", "databases", "databases", "databases", "logout/"]
    assert (app.logins, app.logouts) == (1, 1)


def test_credentials_travel_in_the_body_of_the_login_alone(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(username="jöe & co", password="p+s %=&\N{SNOWMAN}")
    in_session(serve(app), list_databases, username="jöe & co", password=Secret("p+s %=&\N{SNOWMAN}"))
    health, login, listing, logout = app.seen
    assert b"password=p%2Bs+%25%3D%26%E2%98%83" in login.body
    assert health.body == listing.body == logout.body == b""
    assert health.session is login.session is None
    assert listing.session == logout.session
    assert listing.session


def test_a_password_that_is_not_text_travels_as_its_bytes(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()
    as_the_environment_gives_it = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(AuthenticationError):
        in_session(serve(app), nothing, password=Secret(as_the_environment_gives_it))
    assert app.seen[-1].body == b"username=demo&password=caf%E9"


def test_a_failure_within_is_followed_by_the_logout(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()

    async def work(session: Session) -> None:
        await list_databases(session)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        in_session(serve(app), work)
    assert app.paths[-1] == "logout/"
    assert (app.logins, app.logouts) == (1, 1)


def test_a_cancellation_within_is_followed_by_the_logout(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()

    async def work(session: Session) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.sleep(5)

    with pytest.raises(asyncio.CancelledError):
        in_session(serve(app), work)
    assert (app.logins, app.logouts) == (1, 1)


def test_the_end_of_everything_is_followed_by_the_logout(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LIST, Status(302, {"location": "https://other.example/"})))
    with pytest.raises(RedirectRefusedError):
        in_session(serve(app), list_databases)
    assert (app.logins, app.logouts) == (1, 1)


def test_a_users_own_token_is_neither_logged_in_nor_out(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()
    url = serve(app)
    token = token_of(url)
    app.seen.clear()
    in_session(url, list_databases, session=token)
    in_session(url, list_databases, session=token, username="demo", password=Secret("demo"))
    assert app.paths == ["health", "databases"] * 2
    assert (app.logins, app.logouts) == (1, 0)


def test_a_users_own_token_that_is_refused_is_named(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()
    with pytest.raises(AuthenticationError, match="the session of CRDBEXPORT_SESSION was refused") as caught:
        in_session(serve(app), list_databases, session=Secret("of-yesterday"))
    assert "of-yesterday" not in str(caught.value)
    assert app.paths == ["health", "databases"]


@pytest.mark.parametrize(("generation", "token"), [("v22", "n@t_base64"), ("v22", "YWJj"), ("v25", "of-yesterday")])
def test_a_token_that_is_no_session_at_all_is_named(
    serve: Any, in_session: Any, generation: Any, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = NativeSandbox(World(1, 1), generation=generation)
    with pytest.raises(AuthenticationError, match="CRDBEXPORT_SESSION as no session of its own") as caught:
        in_session(serve(app), listed_databases, session=Secret(token))
    assert "take a fresh one from its login" in str(caught.value)
    assert token not in str(caught.value) + caplog.text
    assert (caught.value.exit_code, app.logins, app.logouts) == (4, 0, 0)


@pytest.mark.parametrize("token", ["line\nbreak", "tail\r\n", "é", "", "\x00"])
def test_a_token_that_no_header_can_carry_is_refused_before_any_request(
    token: str, serve: Serve, record: Any, in_session: Any
) -> None:
    app = record()
    with pytest.raises(ConfigError, match="CRDBEXPORT_SESSION"):
        in_session(serve(app), list_databases, session=Secret(token))
    assert app.seen == []


def test_without_login_no_session_is_sent(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(require_login=False)
    in_session(serve(app), list_databases, no_login=True)
    assert [(each.path, each.session) for each in app.seen] == [(HEALTH, None), (LIST, None)]


def test_without_login_a_401_asks_for_one(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()
    with pytest.raises(AuthenticationError, match="leave out --no-login and give --username"):
        in_session(serve(app), list_databases, no_login=True)
    assert app.paths == ["health", "databases"]


def test_a_wrong_password_is_sent_once(serve: Serve, record: Any, in_session: Any) -> None:
    app = record()
    with pytest.raises(AuthenticationError, match='login refused for user "demo"') as caught:
        in_session(serve(app), list_databases, password=Secret("wr0ng"))
    assert app.paths == ["health", "login/"]
    assert "wr0ng" not in str(caught.value)


def test_a_session_that_expires_is_renewed_once_for_all_who_wait(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(latency_seconds=0.01)
    url = serve(app)

    async def work(session: Session) -> list[bytes]:
        await list_databases(session)
        app.revoke_sessions()
        return await asyncio.gather(*[list_databases(session) for _ in range(REQUESTS_AT_ONCE)])

    answers = in_session(url, work, concurrency=REQUESTS_AT_ONCE)
    assert len(set(answers)) == 1
    assert b"movr" in answers[0]
    assert app.hits[LOGIN] == app.logins == 2
    assert app.hits[LIST] == 1 + 2 * REQUESTS_AT_ONCE, "each of them was refused once, and then read"
    assert app.logouts == 1


def test_a_renewed_session_serves_what_follows(serve: Serve, record: Any, in_session: Any) -> None:
    expire = Rule(LIST, Expire(), hits={2})
    app = record(expire)

    async def work(session: Session) -> None:
        for _ in range(4):
            await list_databases(session)

    in_session(serve(app), work)
    assert (expire.fired, app.logins, app.logouts) == (1, 2, 1)
    assert app.seen[-1].session == app.seen[-2].session != app.seen[2].session


def test_a_fresh_session_that_is_refused_is_the_end(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LIST, Status(401)))
    with pytest.raises(AuthenticationError, match="GET databases answered 401 to a session fresh from the login"):
        in_session(serve(app), list_databases)
    assert app.paths == ["health", "login/", "databases", "login/", "databases", "logout/"]


def test_a_session_is_renewed_no_more_than_once_a_run(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LIST, Expire(), hits={1, 3}))

    async def work(session: Session) -> None:
        await list_databases(session)
        await list_databases(session)

    with pytest.raises(AuthenticationError, match="refused the session a second time"):
        in_session(serve(app), work)
    assert app.logins == 2


@pytest.mark.parametrize(("status", "expected"), [(503, ClusterUnavailableError), (401, AuthenticationError)])
def test_a_renewal_that_fails_is_the_same_end_for_all_who_wait(
    status: int, expected: type[Exception], serve: Serve, record: Any, in_session: Any
) -> None:
    app = record(Rule(LOGIN, Status(status), hits=range(2, 100)), latency_seconds=0.01)

    async def work(session: Session) -> list[Any]:
        app.revoke_sessions()
        waiting = [list_databases(session) for _ in range(REQUESTS_AT_ONCE)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    ends = in_session(serve(app), work, concurrency=REQUESTS_AT_ONCE)
    assert {type(end) for end in ends} == {expected}
    assert app.hits[LOGIN] == 1 + (3 if status == 503 else 1)


@pytest.mark.parametrize(
    "action",
    [
        Body(HTML, "text/html; charset=utf-8"),
        Body(b"  \n<html>", "application/json"),
        Status(404, {"content-type": "text/html"}, HTML),
        Status(403, {"content-type": "text/html"}, HTML),
    ],
    ids=["by its type", "by its look", "not found", "forbidden"],
)
def test_no_password_is_sent_to_what_answers_like_a_website(
    action: Any, serve: Serve, record: Any, in_session: Any
) -> None:
    app = record(Rule(HEALTH, action))
    with pytest.raises(UnexpectedServerError, match="answered HTML, not JSON") as caught:
        in_session(serve(app), list_databases)
    assert app.paths == ["health"]
    assert "Welcome" not in str(caught.value)


def test_a_balancer_that_has_no_node_is_told_from_a_website(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(HEALTH, Status(503, {"content-type": "text/html"}, HTML)))
    with pytest.raises(ClusterUnavailableError, match="GET health answered 503"):
        in_session(serve(app), list_databases)
    assert app.paths == ["health"] * 3


def test_a_node_that_comes_back_meanwhile_is_read(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(HEALTH, Status(503), hits={1, 2}))
    assert b"movr" in in_session(serve(app), list_databases)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hidden_health_endpoint_is_no_obstacle(status: int, serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(HEALTH, Status(status)))
    assert b"movr" in in_session(serve(app), list_databases)


@pytest.mark.parametrize(("path", "status"), [(HEALTH, 301), (LOGIN, 302), (LOGIN, 307), (LIST, 308)])
def test_a_redirect_is_refused_and_nothing_reaches_its_target(
    path: str, status: int, serve: Serve, record: Any, in_session: Any
) -> None:
    other = Sandbox(World(1, 1))
    elsewhere = serve(other)
    location = {"location": f"{elsewhere}{path}?token=s3cret", "content-type": "text/html"}
    app = record(Rule(path, Status(status, location, HTML)))
    with pytest.raises(RedirectRefusedError, match=f"a redirect to {elsewhere}; ") as caught:
        in_session(serve(app), list_databases)
    assert other.hits.total() == 0
    assert app.hits[path] == 1
    assert "s3cret" not in str(caught.value)
    assert caught.value.status == status


def test_a_failing_login_is_tried_again_and_then_the_cluster_is_unavailable(
    serve: Serve, record: Any, in_session: Any
) -> None:
    app = record(Rule(LOGIN, Status(500)))
    with pytest.raises(ClusterUnavailableError, match="POST login/ answered 500; the cluster is failing"):
        in_session(serve(app), list_databases)
    assert app.paths == ["health", "login/", "login/", "login/"]


def test_a_login_that_fails_once_is_tried_again(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LOGIN, Status(503), hits={1}))
    in_session(serve(app), list_databases)
    assert (app.hits[LOGIN], app.logins, app.logouts) == (2, 1, 1)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"session": 7}', b'{"session": ""}', b'{"session": "s3cret\\n"}', b'{"session": "s3cr\\u00e9t"}', b"[]"],
)
def test_a_login_reply_without_a_usable_session_is_no_cluster(
    body: bytes, serve: Serve, record: Any, in_session: Any
) -> None:
    app = record(Rule(LOGIN, Body(body)))
    with pytest.raises(UnexpectedServerError, match="POST login/ answered") as caught:
        in_session(serve(app), list_databases)
    assert "s3cr" not in str(caught.value)
    assert LIST not in app.hits


@pytest.mark.parametrize("action", [Status(500), Status(302, {"location": "http://x.example/"}), Body(HTML)])
def test_a_logout_that_fails_takes_nothing_away(action: Any, serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LOGOUT, action))
    assert b"movr" in in_session(serve(app), list_databases)
    assert app.hits[LOGOUT] == 1


def test_a_logout_without_answer_is_warned_about(
    serve: Serve, record: Any, in_session: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crdbexport.cluster.session.LOGOUT_SECONDS", 0.05)
    assert b"movr" in in_session(serve(record(Rule(LOGOUT, Delay(5)))), list_databases)
    assert "the session could not be logged out" in caplog.text


def test_one_unreadable_answer_does_not_end_the_session(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(Rule(LIST, Status(404), hits={1}))

    async def work(session: Session) -> bytes:
        with pytest.raises(UnreadableError):
            await list_databases(session)
        return await list_databases(session)

    assert b"movr" in in_session(serve(app), work)


def test_logins_and_logouts_are_counted_as_requests(serve: Serve, record: Any, in_session: Any) -> None:
    counts = RequestCounts()
    in_session(serve(record()), list_databases, counts=counts)
    assert (counts.total, counts.by_status) == (4, {"200": 4})


def test_no_log_holds_a_secret(serve: Serve, record: Any, in_session: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = record(Rule(LIST, Expire(), hits={1}), password="pa55word")
    with caplog.at_level(logging.DEBUG):
        in_session(serve(app), list_databases, password=Secret("pa55word"))
    tokens = {each.session for each in app.seen if each.session}
    assert len(tokens) == 2
    assert "asyncio" in caplog.text
    assert "databases" not in caplog.text
    assert not [secret for secret in ("pa55word", *tokens) if secret in caplog.text]
