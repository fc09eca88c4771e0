"""The documented Cluster API v2 over a simulated world, as an ASGI application."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import Response

from crdbexport.sandbox.answers import databases_answer, error_answer, json_answer, no_endpoint
from crdbexport.sandbox.base import SESSION_HEADER, WRONG_CREDENTIALS, ClusterApp

PREFIX = ["", "api", "v2"]
NOT_IN_A_URL = frozenset({"", ".", ".."})
SESSION_BYTES = 28

NO_SESSION = "valid session required"


class Sandbox(ClusterApp):
    """A cluster that answers as the API's public page describes; a slash at the end of a path may be left out."""

    def _error(self, status: int, headers: Mapping[str, str]) -> Response:
        return error_answer(status, "injected by the sandbox", dict(headers))

    def _expired(self) -> Response:
        return error_answer(HTTPStatus.UNAUTHORIZED, NO_SESSION)

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
            return self._expired()
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
