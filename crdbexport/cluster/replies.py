"""What a reply of the cluster means: a value, a gap, something to try again, or the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.transport import TRY_AGAIN
from crdbexport.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    CrdbExportError,
    LookAgainError,
    RedirectRefusedError,
    UnexpectedServerError,
    UnreadableError,
)
from crdbexport.http import Reply
from crdbexport.retry import TransientError, retry_after_seconds

T = TypeVar("T")

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, NOT_IMPLEMENTED = 200, 400, 401, 403, 404, 429, 501
# Go's own words for a path that it has no route for; the API words a missing object otherwise.
NO_ROUTE = b"404 page not found"
ON_TENANTS = b"Not Available on Tenants"
# What a 400 says to a session that cannot even be decoded: older servers' own words, newer ones' decoder's.
NO_SESSION = (b"invalid session header", b"illegal base64 data")
REDIRECTS = range(300, 400)


class SessionRefusedError(Exception):
    """The session is missing, expired or revoked (401), or none that this server could have made (400)."""

    def __init__(self, status: int = UNAUTHORIZED) -> None:
        super().__init__(f"the session was refused ({status})")
        self.status = status


def judged(endpoint: Endpoint, reply: Reply, decode: Callable[[bytes], T], *, look_again_at: Container[int] = ()) -> T:
    """The decoded body of a good reply; raises what the reply amounts to otherwise.

    The statuses of `look_again_at` are not tried again now, but at the end of the run.
    """
    if reply.status == OK:
        return _decoded(endpoint, reply, decode)
    if reply.status == UNAUTHORIZED or (reply.status == BAD_REQUEST and reply.body.startswith(NO_SESSION)):
        raise SessionRefusedError(reply.status)
    if reply.status in REDIRECTS:
        raise redirect_refused(endpoint, reply)
    if reply.status == NOT_IMPLEMENTED and reply.body.strip() == ON_TENANTS:
        raise UnexpectedServerError(
            f"{endpoint} answered 501: this is a virtual cluster, which does not offer these endpoints; give the "
            "address of the system tenant (or of a self-hosted cluster) with --url",
            status=reply.status,
        )
    if reply.status in look_again_at:
        raise LookAgainError(f"{endpoint} answered {reply.status}", reason="server_error", http_status=reply.status)
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
    reason = {FORBIDDEN: "forbidden", NOT_FOUND: _not_found(reply)}.get(status, "server_error")
    error = UnreadableError(f"{endpoint} answered {status}", reason=reason, http_status=status)
    if status not in TRY_AGAIN:
        return error
    asked = retry_after_seconds(reply.headers.get("retry-after"), reply.headers.get("date"))
    return TransientError(error, retry_after=asked, throttled=status == TOO_MANY)


def _not_found(reply: Reply) -> str:
    """Which of the two a 404 means: there is no such object, or no request of this form."""
    return "unaddressable" if reply.body.strip() == NO_ROUTE else "not_found"


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
