from __future__ import annotations

import base64
from typing import Any

import pytest

HEADER = "X-Cockroach-API-Session"
DATABASES = "/databases/"
LOGIN = {"username": "demo", "password": "demo"}
NO_HEADER = "invalid session header"
NOT_VALIDATED = "the provided authentication session could not be validated"
WRONG = (401, "the provided credentials did not match any account on the server")
NOT_A_SESSION = base64.b64encode(b"not a protobuf").decode()


@pytest.fixture(scope="module")
def cluster(native: Any) -> Any:
    return native()


def log_in(cluster: Any, **changes: str) -> str:
    answer = cluster.client.post("/login/", data={**LOGIN, **changes})
    assert answer.status_code == 200
    assert answer.json().keys() == {"session"}
    session: str = answer.json()["session"]
    return session


def asked_with(cluster: Any, session: str) -> int:
    status: int = cluster.client.get(DATABASES, headers={HEADER: session}).status_code
    return status


def test_login_answers_with_a_small_protobuf_in_base64(cluster: Any) -> None:
    session = log_in(cluster)
    packed = base64.b64decode(session, validate=True)
    assert (len(packed), packed[:1], packed[10:12]) == (28, b"\x08", b"\x12\x10")
    assert asked_with(cluster, session) == 200


def test_usernames_are_folded_and_passwords_are_not(native: Any) -> None:
    cluster = native(app={"username": "Åsa", "password": "Pä&ss=w+ord"})
    assert log_in(cluster, username="ÅSA", password="Pä&ss=w+ord")
    assert cluster.refused("/login/", "POST", data={"username": "åsa", "password": "pä&ss=w+ord"}) == WRONG


@pytest.mark.parametrize("form", [{"username": "demo"}, {**LOGIN, "password": "no"}, {**LOGIN, "username": "root"}])
def test_wrong_credentials_are_refused_alike(cluster: Any, form: dict[str, str]) -> None:
    assert cluster.refused("/login/", "POST", data=form) == WRONG


def test_a_login_without_a_form_has_no_username(cluster: Any) -> None:
    expected = (400, "username not specified")
    assert cluster.refused("/login/", "POST") == expected
    assert cluster.refused("/login/", "POST", json=LOGIN) == expected
    assert cluster.refused("/login/", "POST", data={"password": "demo"}) == expected


def test_a_login_by_another_method_says_not_found_and_goes_on(cluster: Any) -> None:
    assert cluster.refused("/login/") == (404, "not found\nusername not specified")
    assert cluster.refused("/login/?username=x") == (404, f"not found\n{WRONG[1]}")
    before = cluster.app.logins
    status, text = cluster.refused("/login/?username=demo&password=demo")
    assert (status, text.startswith('not found\n{"session":"'), cluster.app.logins) == (404, True, before + 1)


def test_without_a_header_there_is_no_session(cluster: Any) -> None:
    assert cluster.refused(DATABASES, headers={HEADER: ""}) == (401, NO_HEADER)


def test_an_unknown_session_and_a_wrong_secret_cannot_be_validated(native: Any, cluster: Any) -> None:
    elsewhere = native().app.open_session()
    packed = base64.b64decode(log_in(cluster))
    forged = base64.b64encode(packed[:-1] + bytes([packed[-1] ^ 1])).decode()
    for session in (elsewhere, forged):
        assert cluster.refused(DATABASES, headers={HEADER: session}) == (401, NOT_VALIDATED)


def test_what_is_no_session_at_all_is_refused_by_generation(native: Any) -> None:
    new, old = native(), native(generation="v22")
    assert new.refused(DATABASES, headers={HEADER: "ab!cd"}) == (400, "illegal base64 data at input byte 2")
    assert new.refused(DATABASES, headers={HEADER: NOT_A_SESSION}) == (401, NOT_VALIDATED)
    for session in ("ab!cd", NOT_A_SESSION):
        assert old.refused(DATABASES, headers={HEADER: session}) == (400, NO_HEADER)


def test_the_word_cookie_sends_the_server_to_the_cookie(cluster: Any) -> None:
    session = log_in(cluster)
    told = cluster.client.get(DATABASES, headers={HEADER: "cookie", "Cookie": f"session={session}"})
    assert told.status_code == 200
    assert cluster.refused(DATABASES, headers={HEADER: "cookie"}) == (401, NO_HEADER)


def test_logout_ends_a_session_and_works_twice(cluster: Any) -> None:
    session, other = log_in(cluster), log_in(cluster)
    before = cluster.app.logouts
    answers = [cluster.client.post("/logout/", headers={HEADER: session}) for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"logged_out": True})] * 2
    assert (asked_with(cluster, session), asked_with(cluster, other)) == (401, 200)
    assert cluster.app.logouts == before + 2


def test_logout_looks_at_the_id_alone(cluster: Any) -> None:
    session = log_in(cluster)
    forged = base64.b64encode(base64.b64decode(session)[:12] + bytes(16)).decode()
    assert cluster.client.post("/logout/", headers={HEADER: forged}).status_code == 200
    assert asked_with(cluster, session) == 401


def test_logout_of_what_is_no_session_fails_in_three_ways(native: Any, cluster: Any) -> None:
    elsewhere = native().app.open_session()
    answers = {
        session: cluster.refused("/logout/", "POST", headers={HEADER: session})
        for session in ("", "ab!", NOT_A_SESSION, elsewhere)
    }
    assert answers[""] == (400, "invalid or unspecified session")
    assert answers["ab!"][0] == answers[NOT_A_SESSION][0] == 500
    assert answers[elsewhere] == (400, "invalid session")
    assert cluster.refused("/logout/", headers={HEADER: ""}) == (404, "not found\ninvalid or unspecified session")


def test_an_administrator_ends_every_session(native: Any) -> None:
    cluster = native()
    session = log_in(cluster)
    cluster.app.revoke_sessions()
    assert asked_with(cluster, session) == 401
    assert asked_with(cluster, log_in(cluster)) == 200


def test_an_insecure_cluster_lets_all_in_but_those_who_log_in(native: Any) -> None:
    insecure = native(insecure=True)
    for session in ("", "ab!cd", NOT_A_SESSION):
        assert asked_with(insecure, session) == 200
    assert insecure.refused("/login/", "POST", data=LOGIN) == WRONG
    assert insecure.refused("/login/", "POST") == (400, "username not specified")


def test_where_no_login_is_required_one_still_works(native: Any) -> None:
    cluster = native(app={"require_login": False})
    assert asked_with(cluster, "") == 200
    assert log_in(cluster)
