"""The documented Cluster API v2 over a simulated world, as an ASGI application."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crdbexport.sandbox.answers import databases_answer, error_answer, json_answer, no_endpoint
from crdbexport.sandbox.faults import Action, Body, Delay, Disconnect, Expire, Faults, Status, Truncate
from crdbexport.sandbox.world import World

PREFIX = ["", "api", "v2"]
NOT_IN_A_URL = frozenset({"", ".", ".."})
SESSION_HEADER = "x-cockroach-api-session"
SESSION_BYTES = 28

NO_SESSION = "valid session required"
WRONG_CREDENTIALS = "the provided credentials did not match any account on the server"


class Sandbox:
    """A cluster at the far end of an ASGI server, with one account.

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
        await response(request.scope, request.receive, send)

    def _injected(self, action: Action | None) -> Response | None:
        """The answer of a fault that takes the place of the real one."""
        match action:
            case Status(code, headers, b""):
                return error_answer(code, "injected by the sandbox", dict(headers))
            case Status(code, headers, body):
                return Response(body, code, dict(headers))
            case Body(content, content_type):
                return Response(content, headers={"content-type": content_type})
            case Expire():
                self.revoke_sessions()
                return error_answer(HTTPStatus.UNAUTHORIZED, NO_SESSION)
        return None

    async def _answer(self, request: Request, path: str) -> Response:
        raw = path.split("/")
        if raw[-1] == "":
            raw.pop()
        # Split, then decode: a framework that decodes first takes the slash of `a%2Fb` for a separator.
        decoded = [unquote(segment) for segment in raw]
        segments = decoded[len(PREFIX) :]
        if decoded[: len(PREFIX)] != PREFIX:
            return no_endpoint()
        if NOT_IN_A_URL.intersection(segments):
            # As Go's HTTP server does, which is why no URL can carry such a name.
            return Response(status_code=HTTPStatus.MOVED_PERMANENTLY, headers={"location": _cleaned(raw)})
        allowed = "POST" if segments in (["login"], ["logout"]) else "GET"
        if request.method != allowed:
            return error_answer(HTTPStatus.METHOD_NOT_ALLOWED, f"use {allowed}", {"allow": allowed})
        return await self._open_route(request, segments)

    async def _open_route(self, request: Request, segments: list[str]) -> Response:
        match segments:
            case ["health"]:
                return json_answer({})
            case ["login"]:
                return self._login(await request.body())
            case ["logout"] | ["databases", *_]:
                return self._guarded_route(request, segments)
        return no_endpoint()

    def _guarded_route(self, request: Request, segments: list[str]) -> Response:
        session = request.headers.get(SESSION_HEADER, "")
        if self._require_login and session not in self._sessions:
            return error_answer(HTTPStatus.UNAUTHORIZED, NO_SESSION)
        if segments == ["logout"]:
            return self._logout(session)
        return databases_answer(self._world, segments[1:])

    def _login(self, form: bytes) -> Response:
        fields = parse_qs(form.decode("utf-8", "replace"), keep_blank_values=True)
        given = (fields.get("username", [""])[0], fields.get("password", [""])[0])
        if given != self._account:
            return error_answer(HTTPStatus.UNAUTHORIZED, WRONG_CREDENTIALS)
        session = base64.b64encode(secrets.token_bytes(SESSION_BYTES)).decode("ascii")
        self._sessions.add(session)
        self.logins += 1
        return json_answer({"session": session})

    def _logout(self, session: str) -> Response:
        self._sessions.discard(session)
        self.logouts += 1
        return json_answer({"logged_out": True})


def _cut(response: Response, keep_bytes: int | None) -> Response:
    body = bytes(response.body)
    keep = len(body) // 2 if keep_bytes is None else keep_bytes
    return Response(body[:keep], response.status_code, media_type=response.media_type)


async def _send_half(send: Send) -> None:
    """Promise more than is sent; the server then closes the connection."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"', "more_body": True})


def _cleaned(raw_segments: list[str]) -> str:
    kept: list[str] = []
    for raw in raw_segments:
        match unquote(raw):
            case "" | ".":
                continue
            case "..":
                del kept[-1:]
            case _:
                kept.append(raw)
    return "/" + "/".join(kept)
