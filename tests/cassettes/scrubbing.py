"""What a cassette may hold: the same filter for what is recorded and for what is replayed, and a search for leftovers.

Headers are kept by an allow-list, so that a header nobody thought of does not get in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from vcr.request import Request

PLACEHOLDER = "-redacted-"
HOST = "cluster.example:8080"
ORIGIN = f"http://{HOST}"
API_PATH = "/api/v2"
SESSION_HEADER = "x-cockroach-api-session"

REQUEST_HEADERS = frozenset({"content-type", SESSION_HEADER})
RESPONSE_HEADERS = frozenset({"content-type", "location", "retry-after"})

# The session, and what the native form sends along that may hold users' data.
SECRET_FIELDS = (
    "session",
    "create_table_statement",
    "create_statement",
    "configure_zone_statement",
    "default_value",
    "generation_expression",
    "key",
    "end_key",
)
SECRET_IN_BODY = re.compile(rb'("(%s)"\s*:\s*")((?:[^"\\]|\\.)*)' % "|".join(SECRET_FIELDS).encode())
ADDRESS = re.compile(rb"(https?://)([^/\s\"'<>\\]+)")
RANDOM = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
# Where slashes part words: addresses and media types.
RANDOM_BETWEEN_SLASHES = re.compile(r"[A-Za-z0-9+_=-]{24,}")
# Names of tables and indexes: words, and numbers of four digits, joined by underscores.
# Those of temporary schemas hold numbers of any length.
NAME = re.compile(r"[A-Z]?[a-z]+(-[A-Z][a-z]+)*(_([a-z]+|[0-9]{4}))+|pg_temp(_[0-9]+)+")


def scrub_request(request: Request) -> Request:
    """The request at a fixed address, without credentials and without headers that do not matter."""
    # Whatever comes before the API's path tells where the cluster is.
    request.uri = ORIGIN + API_PATH + request.uri.partition(API_PATH)[2]
    kept = {name.lower(): value for name, value in request.headers.items() if name.lower() in REQUEST_HEADERS}
    request.headers = {name: PLACEHOLDER if name == SESSION_HEADER else value for name, value in kept.items()}
    form = parse_qsl((request.body or b"").decode(), keep_blank_values=True)
    request.body = urlencode([(name, PLACEHOLDER) for name, _ in form]).encode()
    return request


def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
    """The response without secrets and hosts, wherever they stand, and without headers that do not matter."""
    kept = {name.lower(): values for name, values in response["headers"].items() if name.lower() in RESPONSE_HEADERS}
    if "location" in kept:
        kept["location"] = [_target(value) for value in kept["location"]]
    body = SECRET_IN_BODY.sub(rb"\1" + PLACEHOLDER.encode(), response["body"]["string"])
    body = ADDRESS.sub(rb"\g<1>" + HOST.encode(), body)
    return {**response, "headers": kept, "body": {"string": body}}


def leftovers(exchange: Mapping[str, Any]) -> Iterator[str]:
    """What one exchange, as it stands in a cassette's file, holds and must not hold."""
    request, response = exchange["request"], exchange["response"]
    for name, values in request["headers"].items():
        if name.lower() not in REQUEST_HEADERS:
            yield f"request header {name}"
        if name.lower() == SESSION_HEADER and values != [PLACEHOLDER]:
            yield "a session in a request"
    if not request["uri"].startswith(ORIGIN + API_PATH):
        yield f"address {request['uri']}"
    body = _text(request["body"])
    if any(value != PLACEHOLDER for _, value in parse_qsl(body, keep_blank_values=True)):
        yield "a form's value"
    yield from (f"response header {name}" for name in response["headers"] if name.lower() not in RESPONSE_HEADERS)
    answer = _text(response["body"]["string"])
    for found in SECRET_IN_BODY.finditer(answer.encode()):
        if found[3] != PLACEHOLDER.encode():
            yield f"a {found[2].decode()} in a response"
    yield from random_words(body + "\n" + answer)
    headers = [*request["headers"].values(), *response["headers"].values()]
    for found in ADDRESS.finditer(f"{answer} {headers}".encode()):
        if found[2] != HOST.encode():
            yield f"address {found[0].decode()}"
    yield from random_words(f"{request['uri']} {headers}", RANDOM_BETWEEN_SLASHES)


def random_words(text: str, pattern: re.Pattern[str] = RANDOM) -> Iterator[str]:
    """Long runs of the letters of Base64 that are no names."""
    return (f"random word {word}" for word in pattern.findall(text) if not NAME.fullmatch(word))


def _target(location: str) -> str:
    """Where a redirect leads: its scheme, and the API's own path."""
    scheme, absolute, _ = location.partition("://")
    _, found, path = location.partition("?")[0].partition(API_PATH)
    return f"{scheme if absolute else 'http'}://{HOST}{found}{path}"


def _text(body: str | bytes | None) -> str:
    return body.decode("latin-1") if isinstance(body, bytes) else body or ""
