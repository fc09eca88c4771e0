"""What a reply of the cluster means: a value, a gap, something to try again, or the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from crdbexport.cluster.transport import Endpoint
from crdbexport.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    CrdbExportError,
    RedirectRefusedError,
    UnexpectedServerError,
    UnreadableError,
)
from crdbexport.http import Reply
from crdbexport.retry import TransientError, retry_after_seconds

T = TypeVar("T")

OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY = 200, 401, 403, 404, 429
REDIRECTS = range(300, 400)
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class SessionRefusedError(Exception):
    """The server answered 401: the session is missing, expired or revoked."""


def judged(endpoint: Endpoint, reply: Reply, decode: Callable[[bytes], T]) -> T:
    """The decoded body of a good reply; raises what the reply amounts to otherwise."""
    if reply.status == OK:
        return _decoded(endpoint, reply, decode)
    if reply.status == UNAUTHORIZED:
        raise SessionRefusedError
    if reply.status in REDIRECTS:
        raise redirect_refused(endpoint, reply)
    raise _refusal(endpoint, reply)


def redirect_refused(endpoint: Endpoint, reply: Reply) -> RedirectRefusedError:
    return RedirectRefusedError(
        f"{endpoint} answered {reply.status}, a redirect{_to(reply.headers.get('location', ''))}; "
        "a session is never sent on: give the address that answers itself with --url",
        status=reply.status,
    )


def _to(location: str) -> str:
    """Where a redirect leads, as far as it can be understood and may be shown."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f" to {parts.scheme}://{host}" if parts.scheme and host and location.isprintable() else ""


def _refusal(endpoint: Endpoint, reply: Reply) -> Exception:
    status = reply.status
    reason = {FORBIDDEN: "forbidden", NOT_FOUND: "not_found"}.get(status, "server_error")
    error = UnreadableError(f"{endpoint} answered {status}", reason=reason, http_status=status)
    if status not in TRY_AGAIN:
        return error
    asked = retry_after_seconds(reply.headers.get("retry-after"), reply.headers.get("date"))
    return TransientError(error, retry_after=asked)


def _decoded(endpoint: Endpoint, reply: Reply, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(reply.body)
    except msgspec.ValidationError as error:
        problem = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "HTML, not JSON" if looks_like_html(reply) else f"no whole JSON document: {error}"
    raise TransientError(UnreadableError(f"{endpoint} answered {problem}", reason="bad_body", http_status=reply.status))


def looks_like_html(reply: Reply) -> bool:
    return "html" in reply.headers.get("content-type", "") or reply.body.lstrip()[:1] == b"<"


def fatal(error: UnreadableError, *, hint: str = "") -> CrdbExportError:
    """The end that an unreadable reply means where the run cannot go on without it."""
    if error.http_status is None and error.reason == "bad_body":
        return ClusterUnavailableError(f"{error}; check that --url is the HTTP address of a node, then run it again")
    if error.reason == "timeout" or error.http_status in TRY_AGAIN:
        return ClusterUnavailableError(f"{error}; the cluster is failing, run it again later")
    if error.reason == "forbidden":
        return ClusterRefusedError(
            f"{error}; the account may not use this endpoint: it needs a SQL role that is a member of admin",
            status=error.http_status,
        )
    return UnexpectedServerError(f"{error}; {hint or 'is this the HTTP address of a CockroachDB node?'}")
