from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import (
    Body,
    Delay,
    Disconnect,
    Expire,
    Faults,
    Rule,
    Status,
    Truncate,
)
from crdbexport.sandbox.world import World

Serve = Callable[[Sandbox], httpx.Client]

CREDENTIALS = {"username": "demo", "password": "demo"}
GRANTS = "/databases/movr/grants"
RAW_GRANTS = "/api/v2/databases/movr/grants"


def faulty(*rules: Rule, rate: float = 0.0) -> Sandbox:
    return Sandbox(World(), require_login=False, faults=Faults(rate, rules=rules))


def drawn(faults: Faults, requests: int = 400) -> list[str]:
    return [repr(faults.action_for(f"/api/v2/databases/movr/tables/t{n}", 1)) for n in range(requests)]


def test_the_same_seed_fails_the_same_requests() -> None:
    assert drawn(Faults(0.3, seed=5)) == drawn(Faults(0.3, seed=5))
    assert drawn(Faults(0.3, seed=5)) != drawn(Faults(0.3, seed=6))


def test_draws_do_not_depend_on_the_order_of_requests() -> None:
    forward, backward = Faults(0.3), Faults(0.3)
    requests = [(f"/p{path}", hit) for path in range(20) for hit in (1, 2, 3)]
    assert [forward.action_for(*each) for each in requests] == [
        backward.action_for(*each) for each in reversed(requests)
    ][::-1]


@pytest.mark.parametrize("rate", [0.02, 0.25])
def test_the_rate_is_about_right(rate: float) -> None:
    faults = Faults(rate)
    outcomes = Counter(drawn(faults, 10_000))
    failed = 10_000 - outcomes["None"]
    assert failed == faults.drawn == pytest.approx(rate * 10_000, rel=0.15)
    assert len(outcomes) == 6  # None, 500, 503, 429 twice, cut short


def test_no_rate_fails_nothing_and_a_full_rate_everything() -> None:
    assert set(drawn(Faults(0.0))) == {"None"}
    assert "None" not in drawn(Faults(1.0))
    with pytest.raises(ValueError, match="fault rate"):
        Faults(1.5)


def test_health_login_and_logout_never_fail_by_rate(serve: Serve) -> None:
    app = faulty(rate=1.0)
    client = serve(app)
    assert client.get("/health").status_code == 200
    assert client.post("/login", data=CREDENTIALS).status_code == 200
    assert client.post("/logout").status_code == 200
    assert (app.logins, app.logouts, app.hits.total()) == (1, 1, 3)


def test_injected_answers_arrive_as_drawn(serve: Serve) -> None:
    outcomes: Counter[object] = Counter()
    client = serve(faulty(rate=1.0))
    for number in range(60):
        answer = client.get(f"/databases/movr/tables/users?n={number}")
        outcomes[answer.status_code] += 1
        if answer.status_code == 429:
            assert answer.headers["retry-after"] in {"0", "1"}
        if answer.status_code == 200:
            with pytest.raises(json.JSONDecodeError):
                answer.json()
        else:
            assert answer.json()["message"] == "injected by the sandbox"
    assert outcomes.keys() == {200, 429, 500, 503}


def test_a_request_that_failed_may_work_the_next_time(serve: Serve) -> None:
    client = serve(faulty(rate=0.5))
    statuses = [client.get(GRANTS).status_code for _ in range(20)]
    client = serve(faulty(rate=0.5))
    again = [client.get(GRANTS).status_code for _ in range(20)]
    assert statuses == again
    assert {200, 503} <= set(statuses)


def test_a_status_rule_fires_on_its_hits_only(serve: Serve) -> None:
    rule = Rule(RAW_GRANTS, Status(503, {"Retry-After": "0"}), hits=range(1, 3))
    client = serve(faulty(rule))
    answers = [client.get(GRANTS) for _ in range(4)]
    assert client.get("/databases").status_code == 200
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "0"
    assert answers[0].json()["error"] == "service unavailable"
    assert rule.fired == 2


def test_a_status_rule_may_bring_its_own_body(serve: Serve) -> None:
    rule = Rule(".*/movr", Status(302, {"location": "http://192.0.2.1/"}, b"moved"))
    client = serve(faulty(rule))
    answer = client.get("/databases/movr")
    assert (answer.status_code, answer.headers["location"], answer.content) == (
        302,
        "http://192.0.2.1/",
        b"moved",
    )


def test_a_rule_must_match_the_whole_raw_path() -> None:
    whole, part = Rule("/api/v2/databases/a%2Fb", Status(500)), Rule("databases", Status(500))
    faults = Faults(rules=[part, whole])
    assert faults.action_for("/api/v2/databases/a%2Fb", 1) == Status(500)
    assert faults.action_for("/api/v2/databases/a/b", 1) is None
    assert (part.fired, whole.fired) == (0, 1)


def test_the_first_rule_that_applies_wins() -> None:
    first, second = Rule(".*", Delay(0), hits={1}), Rule(".*", Status(500))
    faults = Faults(rate=1.0, rules=[first, second])
    assert [faults.action_for("/x", hit) for hit in (1, 2)] == [Delay(0), Status(500)]
    assert (first.fired, second.fired, faults.drawn) == (1, 1, 0)


def test_a_body_rule_replaces_the_answer(serve: Serve) -> None:
    client = serve(faulty(Rule(RAW_GRANTS, Body(b"<html>", "text/html"))))
    answer = client.get(GRANTS)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        b"<html>",
        "text/html",
    )


@pytest.mark.parametrize("keep_bytes", [0, 7])
def test_a_truncated_answer_has_a_matching_length(keep_bytes: int, serve: Serve) -> None:
    client = serve(faulty(Rule(RAW_GRANTS, Truncate(keep_bytes))))
    answer = client.get(GRANTS)
    assert answer.content == b'{"grants":'[:keep_bytes]
    assert answer.headers["content-length"] == str(keep_bytes)


def test_a_delayed_answer_arrives_late_and_whole(serve: Serve) -> None:
    client = serve(faulty(Rule(RAW_GRANTS, Delay(0.05), hits={1})))
    late, prompt = client.get(GRANTS), client.get(GRANTS)
    assert late.elapsed.total_seconds() >= 0.05
    assert late.json() == prompt.json()


def test_expire_ends_every_session(serve: Serve) -> None:
    rule = Rule(RAW_GRANTS, Expire(), hits={2})
    client = serve(Sandbox(World(), faults=Faults(rules=[rule])))

    def statuses_after_login() -> list[int]:
        session = client.post("/login/", data=CREDENTIALS).json()["session"]
        client.headers["X-Cockroach-API-Session"] = session
        return [client.get(GRANTS).status_code for _ in range(3)]

    assert statuses_after_login() == [200, 401, 401]
    assert statuses_after_login() == [200, 200, 200]
    assert rule.fired == 1


def test_a_rule_may_refuse_the_login(serve: Serve) -> None:
    rule = Rule("/api/v2/login/", Status(503), hits={2})
    app = faulty(rule)
    client = serve(app)
    answers = [client.post("/login/", data=CREDENTIALS) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 503]
    assert (rule.fired, app.logins) == (1, 1)


def test_a_disconnect_breaks_the_answer_off(serve: Serve) -> None:
    client = serve(faulty(Rule(RAW_GRANTS, Disconnect(), hits={1})))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(GRANTS)
    assert client.get(GRANTS).status_code == 200
