from __future__ import annotations

import base64
import copy
import secrets
from pathlib import Path
from typing import Any

import pytest
from record import CASSETTES, EVERY
from scrubbing import ORIGIN, PLACEHOLDER, leftovers, random_words, scrub_request, scrub_response
from tape import exchanges
from vcr.request import Request

EVERY_CASSETTE = sorted(CASSETTES.rglob("*.yaml"))
SESSION = "CIGAiPis4fj3CBIQ3u0rRQJ3tD8yIqee4hipow=="
CLEAN: dict[str, Any] = {
    "request": {
        "method": "POST",
        "uri": f"{ORIGIN}/api/v2/login/",
        "body": f"username={PLACEHOLDER}&password={PLACEHOLDER}",
        "headers": {"content-type": ["application/x-www-form-urlencoded"]},
    },
    "response": {
        "status": {"code": 200, "message": "OK"},
        "headers": {"content-type": ["application/json"]},
        "body": {"string": f'{{"session":"{PLACEHOLDER}"}}'},
    },
}


def changed(part: str, field: str, value: Any) -> dict[str, Any]:
    exchange = copy.deepcopy(CLEAN)
    exchange[part][field] = value
    return exchange


@pytest.mark.parametrize("path", EVERY_CASSETTE, ids=lambda path: path.stem)
def test_no_cassette_holds_a_secret(path: Path) -> None:
    found = exchanges(path)
    assert found
    assert [each for exchange in found for each in leftovers(exchange)] == []
    comment = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert list(random_words(comment)) == []


def test_the_cassettes_that_are_searched_are_all_there_are() -> None:
    assert {path.stem for path in EVERY_CASSETTE} >= set(EVERY)
    assert {path.suffix for path in CASSETTES.rglob("*") if path.is_file()} == {".yaml"}


@pytest.mark.parametrize(
    ("part", "field", "value", "told"),
    [
        ("request", "headers", {"Authorization": ["Basic eA=="]}, "request header Authorization"),
        ("request", "headers", {"cookie": ["session=x"]}, "request header cookie"),
        ("request", "headers", {"X-Cockroach-API-Session": ["x"]}, "a session in a request"),
        ("request", "uri", "https://db.internal:8080/api/v2/login/", "address https://db.internal"),
        ("request", "uri", f"{ORIGIN}/api/v2/databases/{SESSION}", "random word"),
        ("request", "body", f"username={PLACEHOLDER}&password=hunter2", "a form's value"),
        ("response", "headers", {"set-cookie": ["session=x"]}, "response header set-cookie"),
        ("response", "headers", {"retry-after": [SESSION]}, "random word"),
        ("response", "body", {"string": '{"session": "x"}'}, "a session in a response"),
        ("response", "body", {"string": '{"session": "x'}, "a session in a response"),
        ("response", "body", {"string": b'\xff{"session":"x"}'}, "a session in a response"),
        ("response", "body", {"string": f'{{"token":"{SESSION}"}}'}, "random word"),
        ("response", "body", {"string": '{"default_value":"x"}'}, "a default_value in a response"),
        ("response", "body", {"string": '<a href="https://db.internal:1/x">'}, "address https://db.internal:1"),
        ("response", "headers", {"location": ["https://db.internal:1/x"]}, "address https://db.internal:1"),
    ],
)
def test_a_leftover_is_found(part: str, field: str, value: Any, told: str) -> None:
    assert list(leftovers(CLEAN)) == []
    assert any(each.startswith(told) for each in leftovers(changed(part, field, value)))


@pytest.mark.parametrize("make", [secrets.token_urlsafe, secrets.token_hex])
def test_a_token_of_any_spelling_is_a_random_word(make: Any) -> None:
    for _ in range(200):
        assert list(random_words(f'"{make(28)}"'))


def test_a_session_as_servers_make_it_is_a_random_word() -> None:
    for _ in range(200):
        assert list(random_words(base64.b64encode(secrets.token_bytes(28)).decode()))


@pytest.mark.parametrize(
    "name",
    ["vehicle_location_histories_0005_pkey", "Prod-Data_sku_created_at_idx", "pg_temp_1700000000000000000_1"],
)
def test_the_name_of_a_table_or_an_index_is_no_random_word(name: str) -> None:
    assert list(random_words(name)) == []


def test_a_login_is_scrubbed_both_ways() -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "x", "Host": "db.internal"}
    request = scrub_request(
        Request("POST", "https://db.internal/proxy/api/v2/login/?a=1", b"username=me&password=p%26w", headers)
    )
    assert (request.uri, request.body) == (
        f"{ORIGIN}/api/v2/login/?a=1",
        f"username={PLACEHOLDER}&password={PLACEHOLDER}".encode(),
    )
    assert dict(request.headers) == {"content-type": "application/x-www-form-urlencoded"}
    response = scrub_response(
        {
            "status": {"code": 200, "message": "OK"},
            "headers": {"Content-Type": ["application/json"], "Set-Cookie": [f"session={SESSION}"], "Date": ["now"]},
            "body": {"string": b'{"session" : "a\\"b", "databases": [{"name": "session"}]}'},
        }
    )
    assert response["headers"] == {"content-type": ["application/json"]}
    assert response["body"]["string"] == b'{"session" : "-redacted-", "databases": [{"name": "session"}]}'


def test_a_names_own_percent_encoding_survives() -> None:
    address = "/api/v2/databases/a%2Fb/tables/%3Fq%23f"
    assert scrub_request(Request("GET", f"http://127.0.0.1:1{address}", b"", {})).uri == ORIGIN + address


def test_a_redirect_tells_no_host_wherever_it_stands() -> None:
    body = b'<a href="https://db.internal:1/api/v2/health">Temporary Redirect</a>.\n\n'
    response = scrub_response(
        {
            "status": {"code": 307, "message": "Temporary Redirect"},
            "headers": {"Location": ["https://db.internal:1/proxy/api/v2/health?a=1"]},
            "body": {"string": body},
        }
    )
    assert response["headers"] == {"location": ["https://cluster.example:8080/api/v2/health"]}
    assert response["body"]["string"] == body.replace(b"db.internal:1", b"cluster.example:8080")


def test_what_may_hold_data_of_users_is_scrubbed_and_names_are_not() -> None:
    told = b'{"default_value":"a \\"b\\"","name":"default_value","subzone_spans":[{"key":"eA==","end_key":"eQ=="}]}'
    body = scrub_response({"headers": {}, "body": {"string": told}})["body"]["string"]
    assert body == (
        b'{"default_value":"-redacted-","name":"default_value",'
        b'"subzone_spans":[{"key":"-redacted-","end_key":"-redacted-"}]}'
    )


def test_scrubbing_what_is_scrubbed_changes_nothing() -> None:
    response = copy.deepcopy(CLEAN["response"])
    response["body"]["string"] = response["body"]["string"].encode()
    assert scrub_response(response) == response
    request = scrub_request(Request._from_dict(copy.deepcopy(CLEAN["request"])))
    assert scrub_request(copy.deepcopy(request))._to_dict() == request._to_dict()
