"""What both forms of the sandbox share: accounts, sessions, counters, latency and faults, as an ASGI application."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crdbexport.sandbox.faults import Action, Body, Delay, Disconnect, Expire, Faults, Status, Truncate
from crdbexport.sandbox.world import World

SESSION_HEADER = "x-cockroach-api-session"
WRONG_CREDENTIALS = "the provided credentials did not match any account on the server"


class ClusterApp(ABC):
    """A cluster at the far end of an ASGI server, with one account; a form says how it answers.

    For tests: `hits` counts requests by raw path, `logins` and `logouts` those that succeeded, and
    `max_in_flight` is the most requests that were being answered at once.
    """

    def __init__(
        self,
        world: World,
        *,
        username: str = "demo",
        password: str = "demo",  # noqa: S107 - of a cluster that does not exist
        require_login: bool = True,
        latency_seconds: float = 0.0,
        faults: Faults | None = None,
    ) -> None:
        self.hits: Counter[str] = Counter()
        self.logins = 0
        self.logouts = 0
        self.max_in_flight = 0
        self._world = world
        self._account = (username, password)
        self._require_login = require_login
        self._latency_seconds = latency_seconds
        self._faults = faults or Faults()
        self._sessions: set[str] = set()
        self._in_flight = 0

    @abstractmethod
    async def _answer(self, request: Request, path: str) -> Response:
        """The real answer to a request for the raw `path`."""

    @abstractmethod
    def _error(self, status: int, headers: Mapping[str, str]) -> Response:
        """An injected error, worded as this form words it."""

    @abstractmethod
    def _expired(self) -> Response:
        """The answer to a session that has ended."""

    def _sent(self, request: Request, response: Response) -> Response:
        """The response as it goes over the wire."""
        return response

    def revoke_sessions(self) -> None:
        """End every session, as an administrator would."""
        self._sessions.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            await self._serve(Request(scope, receive), send)
        finally:
            self._in_flight -= 1

    async def _serve(self, request: Request, send: Send) -> None:
        path: str = request.scope["raw_path"].decode("ascii")
        self.hits[path] += 1
        action = self._faults.action_for(path, self.hits[path])
        delay_seconds = self._latency_seconds + (action.seconds if isinstance(action, Delay) else 0.0)
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        if isinstance(action, Disconnect):
            await _send_half(send)
            return
        response = self._injected(action) or await self._answer(request, path)
        if isinstance(action, Truncate):
            response = _cut(response, action.keep_bytes)
        await self._sent(request, response)(request.scope, request.receive, send)

    def _injected(self, action: Action | None) -> Response | None:
        """The answer of a fault that takes the place of the real one."""
        match action:
            case Status(code, headers, b""):
                return self._error(code, headers)
            case Status(code, headers, body):
                return Response(body, code, dict(headers))
            case Body(content, content_type):
                return Response(content, headers={"content-type": content_type})
            case Expire():
                self.revoke_sessions()
                return self._expired()
        return None


def _cut(response: Response, keep_bytes: int | None) -> Response:
    body = bytes(response.body)
    keep = len(body) // 2 if keep_bytes is None else keep_bytes
    return Response(body[:keep], response.status_code, media_type=response.media_type)


async def _send_half(send: Send) -> None:
    """Promise more than is sent; the server then closes the connection."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"', "more_body": True})
