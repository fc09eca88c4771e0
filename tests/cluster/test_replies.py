from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crdbexport.cluster.dialects.wire_documented import DatabasesReply
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.replies import SessionRefusedError, fatal, judged
from crdbexport.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    CrdbExportError,
    RedirectRefusedError,
    UnexpectedServerError,
    UnreadableError,
)
from crdbexport.http import Reply
from crdbexport.records import GAP_REASONS
from crdbexport.retry import TransientError

LIST = Endpoint("GET", ("databases",))
SECRET = b'{"error": "s3cret", "databases": [{"name": "s3cret"}]}'


def judge(status: int, body: bytes = SECRET, **headers: str) -> Any:
    decode = msgspec.json.Decoder(DatabasesReply, strict=False).decode
    return judged(LIST, Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body), decode)


def test_a_good_reply_is_its_decoded_body() -> None:
    assert [each.name for each in judge(200).databases] == ["s3cret"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "forbidden"),
        (404, "not_found"),
        (400, "server_error"),
        (405, "server_error"),
        (410, "server_error"),
        (501, "server_error"),
        (201, "server_error"),
        (204, "server_error"),
    ],
)
def test_a_refusal_for_good_is_a_gap_with_its_reason(status: int, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        judge(status)
    assert (caught.value.reason, caught.value.http_status) == (reason, status)
    assert str(caught.value) == f"GET databases answered {status}"
    assert reason in GAP_REASONS


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_transient_and_else_a_server_error(status: int) -> None:
    with pytest.raises(TransientError) as caught:
        judge(status)
    final = caught.value.final
    assert isinstance(final, UnreadableError)
    assert (final.reason, final.http_status, caught.value.retry_after) == ("server_error", status, None)
    assert str(final) == f"GET databases answered {status}"


@pytest.mark.parametrize(("value", "seconds"), [("17", 17), ("nan", None), ("Wed, 21 Oct 2015 07:28:30 GMT", 30)])
def test_a_transient_reply_tells_how_long_to_wait(value: str, seconds: float | None) -> None:
    with pytest.raises(TransientError) as caught:
        judge(503, retry_after=value, date="Wed, 21 Oct 2015 07:28:00 GMT")
    assert caught.value.retry_after == seconds


def test_a_401_is_for_the_session_to_mend() -> None:
    with pytest.raises(SessionRefusedError):
        judge(401)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://other.example:8443/login?token=s3cret#s3cret", "a redirect to https://other.example:8443; "),
        ("https://user:s3cret@other.example/", "a redirect to https://other.example; "),
        ("https://\x1b\u202eother.example/", "a redirect; "),
        ("http://[s3cret", "a redirect; "),
        ("/login?s3cret", "a redirect; "),
        ("//other.example/s3cret", "a redirect; "),
        ("", "a redirect; "),
    ],
)
def test_a_redirect_names_its_target_without_path_query_or_user(status: int, location: str, told: str) -> None:
    with pytest.raises(RedirectRefusedError) as caught:
        judge(status, location=location)
    assert str(caught.value).startswith(f"GET databases answered {status}, {told}")
    assert "--url" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.status == status


def bad_body(body: bytes, **headers: str) -> str:
    """The message about a body of a reply 200 that does not fit."""
    with pytest.raises(TransientError) as caught:
        judge(200, body, **headers)
    final = caught.value.final
    assert isinstance(final, UnreadableError)
    assert (final.reason, final.http_status) == ("bad_body", 200)
    return str(final)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "GET databases answered Object missing required field `databases`"),
        (b"[]", "GET databases answered Expected `object`, got `array`"),
        (b"null", "GET databases answered Expected `object`, got `null`"),
        (b'{"databases": "s3cret"}', "GET databases answered Expected `array`, got `str` - at `$.databases`"),
        (
            b'{"databases": [{"name": "s3cret"}, {"name": 7}]}',
            "GET databases answered Expected `str`, got `int` - at `$.databases[1].name`",
        ),
        (
            b'{"databases": [{"name": "s3cret", "id": "s3cret"}]}',
            "GET databases answered Expected `int | null`, got `str` - at `$.databases[0].id`",
        ),
        (
            b'{"databases": [{"id": 7}]}',
            "GET databases answered Object missing required field `name` - at `$.databases[0]`",
        ),
    ],
)
def test_an_ill_shaped_body_is_told_by_path_and_expectation_never_by_its_content(body: bytes, message: str) -> None:
    assert bad_body(body) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"s3cret",
        b'{"s3cret',
        b'{"databases": []} s3cret',
        b"\xff\xfe s3cret",
        b'{"databases": [{"name": "\xff"}]}',
    ],
)
def test_what_is_no_json_document_is_a_bad_body(body: bytes) -> None:
    message = bad_body(body)
    assert message.startswith("GET databases answered no whole JSON document: ")
    assert "s3cret" not in message


def test_a_website_in_place_of_a_document_is_called_by_its_name() -> None:
    assert bad_body(b"<html>s3cret</html>") == "GET databases answered HTML, not JSON"
    assert bad_body(b"Please log in", content_type="text/html") == "GET databases answered HTML, not JSON"


def test_a_body_nested_without_end_is_a_bad_body() -> None:
    assert "GET databases answered" in bad_body(b'{"databases": ' + b"[" * 100_000)
    assert "GET databases answered" in bad_body(b'{"unknown": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@pytest.mark.parametrize(
    ("reason", "status", "end"),
    [
        ("timeout", None, ClusterUnavailableError),
        ("server_error", 500, ClusterUnavailableError),
        ("server_error", 429, ClusterUnavailableError),
        ("server_error", 503, ClusterUnavailableError),
        ("forbidden", 403, ClusterRefusedError),
        ("not_found", 404, UnexpectedServerError),
        ("server_error", 501, UnexpectedServerError),
        ("bad_body", 200, UnexpectedServerError),
        ("bad_body", None, ClusterUnavailableError),
        ("too_large", None, UnexpectedServerError),
    ],
)
def test_what_the_run_cannot_go_on_without_decides_how_it_ends(
    reason: str, status: int | None, end: type[CrdbExportError]
) -> None:
    error = fatal(UnreadableError("GET databases failed", reason=reason, http_status=status), hint="a hint")
    assert type(error) is end
    assert str(error).startswith("GET databases failed; ")
    assert ("a hint" in str(error)) is (end is UnexpectedServerError)
