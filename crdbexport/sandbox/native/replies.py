"""Answers as Go's standard library sends them: JSON, or one line of plain text."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus, client
from typing import Any

import msgspec
from starlette.responses import Response

NO_ROUTE = "404 page not found"
INTERNAL = "An internal server error has occurred. Please check your CockroachDB logs for more details."
NO_HEADER = "invalid session header"
NO_SESSION = "the provided authentication session could not be validated"

_INJECTED = {401: NO_SESSION, 403: "user not allowed to access this endpoint"}
_INJECTED |= {404: "database or table not found", 500: INTERNAL, 501: "Not Available on Tenants"}


class RefusedError(Exception):
    """A request is answered with an error: its status and its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def not_found(text: str) -> RefusedError:
    """404 with this text; each endpoint has its own."""
    return RefusedError(HTTPStatus.NOT_FOUND, text)


def internal_error() -> RefusedError:
    """500; only the server's log would say why."""
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL)


def injected_text(status: int) -> str:
    """What a real server says with this status, where it sends it at all."""
    return _INJECTED.get(status) or client.responses.get(status, "error")


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """One line of plain text."""
    headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(f"{text}\n", status, headers)


def json_answer(value: Any) -> Response:
    """`value` as JSON, with 200."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def redirect(status: HTTPStatus, location: str) -> Response:
    """A redirect with the small page that Go adds."""
    page = f'<a href="{location}">{status.phrase}</a>.\n\n'
    return Response(page, status, {"location": location, "content-type": "text/html; charset=utf-8"})


def finished(response: Response, accepted_encodings: str) -> Response:
    """The response with what the server's outermost layer adds: no caching, and compression where it is accepted."""
    response.headers["cache-control"] = "no-cache"
    body = bytes(response.body)
    if body and "gzip" in accepted_encodings and "content-encoding" not in response.headers:
        response.body = gzip.compress(body, compresslevel=1, mtime=0)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))
    return response


def present(**fields: Any) -> dict[str, Any]:
    """The fields but those that Go leaves out of JSON: 0, false and the empty string."""
    return {name: value for name, value in fields.items() if value or isinstance(value, list)}


def rfc3339(moment: datetime | None) -> str | None:
    """A time in UTC as Go prints it: without the zeros that end its fraction."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "Z"
