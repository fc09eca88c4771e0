"""The Cluster API v2 as real servers speak it, over a simulated world, as an ASGI application."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from crdbexport.sandbox.base import SESSION_HEADER, WRONG_CREDENTIALS, ClusterApp
from crdbexport.sandbox.faults import Faults
from crdbexport.sandbox.native.by_name import Asked, ByName
from crdbexport.sandbox.native.metadata import Metadata
from crdbexport.sandbox.native.quirks import NONE, Generation, Quirks
from crdbexport.sandbox.native.replies import (
    NO_ROUTE,
    NO_SESSION,
    RefusedError,
    finished,
    injected_text,
    internal_error,
    json_answer,
    not_found,
    redirect,
    text_answer,
)
from crdbexport.sandbox.native.routes import Route, routes_by_id, routes_by_name
from crdbexport.sandbox.native.sessions import Sessions
from crdbexport.sandbox.native.stats_job import Clock, StatsJob
from crdbexport.sandbox.world import World

PREFIX = "/api/v2"
IN_CLEAR = "/health"
OPEN = ("/health/", "/login/", "/logout/")
GO_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
FORM = "application/x-www-form-urlencoded"
WITH_FORM_BODY = frozenset({"POST", "PUT", "PATCH"})


def _now() -> datetime:
    return datetime.now(UTC)


class NativeSandbox(ClusterApp):
    """A cluster that answers as servers of its generation do, but for what its quirks change.

    Only the routes about databases, sessions and health are there. With `require_login` off, sessions are not checked;
    an insecure cluster (a quirk) refuses logins as well. Times come from `clock`, which answers in UTC.
    """

    def __init__(
        self,
        world: World,
        *,
        generation: Generation = "v25",
        username: str = "demo",
        password: str = "demo",  # noqa: S107 - of a cluster that does not exist
        require_login: bool = True,
        latency_seconds: float = 0.0,
        faults: Faults | None = None,
        quirks: Quirks = NONE,
        clock: Clock = _now,
    ) -> None:
        super().__init__(
            world,
            username=username,
            password=password,
            require_login=require_login and not quirks.insecure,
            latency_seconds=latency_seconds,
            faults=faults,
        )
        self._quirks = quirks
        self._logins = Sessions(self._sessions, generation)
        self._routes = _routes(world, quirks, generation, clock)

    def open_session(self) -> str:
        """A session's token without a login, as `cockroach auth-session login` gives one."""
        return self._logins.open()

    def _error(self, status: int, headers: Mapping[str, str]) -> Response:
        return text_answer(status, injected_text(status), headers)

    def _expired(self) -> Response:
        return text_answer(HTTPStatus.UNAUTHORIZED, NO_SESSION)

    def _sent(self, request: Request, response: Response) -> Response:
        return finished(response, request.headers.get("accept-encoding", ""))

    async def _answer(self, request: Request, path: str) -> Response:
        decoded = unquote(path)
        cleaned = _cleaned(decoded)
        query = f"?{request.url.query}" if request.url.query else ""
        if self._quirks.https_only and decoded != IN_CLEAR:
            host = request.headers.get("host", "")
            return redirect(HTTPStatus.TEMPORARY_REDIRECT, f"https://{host}{path}{query}")
        if cleaned != decoded or decoded == PREFIX:
            target = cleaned if cleaned != PREFIX else f"{PREFIX}/"
            return redirect(HTTPStatus.MOVED_PERMANENTLY, quote(target) + query)
        if decoded == IN_CLEAR:
            return json_answer({})
        try:
            return await self._below_prefix(request, decoded)
        except RefusedError as refusal:
            return text_answer(refusal.status, refusal.text)

    async def _below_prefix(self, request: Request, path: str) -> Response:
        below = path.removeprefix(PREFIX)
        if below == path:
            raise not_found(NO_ROUTE)
        if below in OPEN:
            return await self._open_route(request, below)
        for route in self._routes:
            parts = route.match(below)
            if parts is not None:
                return self._guarded_route(request, route, parts)
        raise not_found(NO_ROUTE)

    async def _open_route(self, request: Request, below: str) -> Response:
        self._refuse_tenants()
        if below == "/health/":
            return self._health(request.query_params.get("ready", ""))
        if request.method == "POST":
            return await self._log_in_or_out(request, below)
        # The server says so, does not return, and says the rest as well.
        try:
            said = bytes((await self._log_in_or_out(request, below)).body).decode()
        except RefusedError as refusal:
            said = f"{refusal.text}\n"
        return text_answer(HTTPStatus.NOT_FOUND, f"not found\n{said.removesuffix(chr(10))}")

    async def _log_in_or_out(self, request: Request, below: str) -> Response:
        if below == "/logout/":
            self._logins.close(_token(request))
            self.logouts += 1
            return json_answer({"logged_out": True})
        return self._login(await _form(request))

    def _login(self, form: Mapping[str, str]) -> Response:
        username = form.get("username", "").lower()
        if not username:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "username not specified")
        known = (self._account[0].lower(), self._account[1])
        if self._quirks.insecure or (username, form.get("password", "")) != known:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, WRONG_CREDENTIALS)
        self.logins += 1
        return json_answer({"session": self._logins.open()})

    def _guarded_route(self, request: Request, route: Route, parts: tuple[str, ...]) -> Response:
        if not route.on_tenants:
            self._refuse_tenants()
        if self._require_login:
            self._logins.check(_token(request))
        if route.methods and request.method not in route.methods:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed")
        return route.answer(Asked(request.method, request.query_params, parts))

    def _health(self, ready: str) -> Response:
        if ready and ready not in GO_TRUE | GO_FALSE:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "invalid ready value")
        if ready in GO_TRUE and self._quirks.not_ready:
            raise internal_error()
        return json_answer({})

    def _refuse_tenants(self) -> None:
        if self._quirks.tenant:
            raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "Not Available on Tenants")


def _routes(world: World, quirks: Quirks, generation: Generation, clock: Clock) -> Sequence[Route]:
    if quirks.too_old:
        return ()
    by_name = routes_by_name(ByName(world, quirks, generation, clock()))
    if generation == "v22":
        return by_name
    return (*by_name, *routes_by_id(Metadata(world, quirks, StatsJob(quirks, clock))))


def _token(request: Request) -> str:
    """The session of a request; the word `cookie` sends the server to the cookie of that purpose."""
    sent = request.headers.get(SESSION_HEADER, "")
    return request.cookies.get("session", "") if sent == "cookie" else sent


async def _form(request: Request) -> dict[str, str]:
    """The form values as Go reads them: from the query too, and from no other kind of body."""
    fields = parse_qsl(request.url.query, keep_blank_values=True)
    if request.method in WITH_FORM_BODY and request.headers.get("content-type", "").startswith(FORM):
        fields += parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    return dict(fields)


def _cleaned(path: str) -> str:
    """The path without empty and dot segments, which a server redirects to."""
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned
