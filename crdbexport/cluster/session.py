"""The session: one login, at most one renewal, one logout.

A login costs the server a password hash and a row in a table, so it happens once a run, and once more if the session
dies on the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

import msgspec

from crdbexport.cluster.endpoint import HEALTH, Endpoint
from crdbexport.cluster.replies import BAD_REQUEST, REDIRECTS, SessionRefusedError, fatal, judged, looks_like_html
from crdbexport.cluster.sending import Judge, T, origin
from crdbexport.cluster.transport import TRY_AGAIN, ClusterTransport
from crdbexport.errors import (
    AuthenticationError,
    CrdbExportError,
    UnexpectedServerError,
    UnreadableError,
    shown,
)
from crdbexport.http import Reply
from crdbexport.options import Secret
from crdbexport.redaction import Redaction
from crdbexport.retry import TransientError

SESSION_HEADER = "X-Cockroach-API-Session"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LOGOUT_SECONDS = 5.0
# httpx takes no URL of more than 65536 characters.
LONGEST_TARGET = 60_000
# What a header can carry.
VISIBLE_ASCII = r"\A[!-~]+\Z"

LOGIN = Endpoint("POST", ("login",), trailing_slash=True)
LOGOUT = Endpoint("POST", ("logout",), trailing_slash=True)

log = logging.getLogger(__name__)


class _LoginReply(msgspec.Struct):
    session: Annotated[str, msgspec.Meta(pattern=VISIBLE_ASCII)]


@dataclass(frozen=True)
class Credentials:
    """How to get in: a username and password, a ready token, or neither where the cluster asks for none."""

    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None


class Session:
    """An authenticated way to the cluster; use as an async context manager.

    A token of its own is logged out at the end, whatever happened; one that the user brought never is.
    """

    def __init__(self, transport: ClusterTransport, credentials: Credentials, redaction: Redaction) -> None:
        self._transport = transport
        self._credentials = credentials
        self._redaction = redaction
        self._token = credentials.token
        self._renewed = False
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> Session:
        await self._check_health()
        if self._can_login:
            self._token = await self._login()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._can_login and self._token is not None:
            await self._logout(self._token)

    async def get(self, endpoint: Endpoint, decode: Callable[[bytes], T], *, look_again_at: Container[int] = ()) -> T:
        """The decoded answer of an endpoint; raises `UnreadableError` where this one cannot be read.

        A refused session leads to one new login for all that wait, and to the end if it comes again. A status of
        `look_again_at` is final for now: it raises `LookAgainError`.
        """

        if len(endpoint.target) > LONGEST_TARGET:
            raise UnreadableError("the name is too long to stand in a URL", reason="unaddressable")

        def judge(reply: Reply) -> T:
            return judged(endpoint, reply, decode, look_again_at=look_again_at)

        token = self._token
        try:
            return await self._transport.exchange(endpoint, judge, headers=_headers(token))
        except SessionRefusedError as refusal:
            fresh = await self._renewed_after(token, refusal.status)
        try:
            return await self._transport.exchange(endpoint, judge, headers=_headers(fresh))
        except SessionRefusedError as error:
            raise self._refused_for_good(
                f"{endpoint} answered {error.status} to a session fresh from the login; see whether something in "
                f"between drops the header {SESSION_HEADER}"
            ) from error

    async def post(self, endpoint: Endpoint, decode: Callable[[bytes], T]) -> T:
        """As `get`, for an endpoint that takes a POST without a body. It may be sent several times."""
        return await self.get(endpoint, decode)

    @property
    def _can_login(self) -> bool:
        return self._credentials.token is None and self._credentials.username is not None

    async def _renewed_after(self, refused: Secret | None, status: int) -> Secret:
        async with self._renewing:
            if self._token is not refused and self._token is not None:
                return self._token
            if not self._can_login:
                raise self._refused_for_good(self._no_way_in(status))
            if self._renewed:
                raise self._refused_for_good("the server refused the session a second time (401); see its log")
            log.warning("the session was refused (401); logging in once more", extra={"event": "login_renewed"})
            # A login that fails ends the transport, so that those who wait here send no second one.
            self._token = await self._login()
            self._renewed = True
            return self._token

    def _refused_for_good(self, message: str) -> CrdbExportError:
        return self._transport.end(AuthenticationError(message))

    def _no_way_in(self, status: int) -> str:
        if self._credentials.token is None:
            return "the cluster demands a login (401); leave out --no-login and give --username"
        if status == BAD_REQUEST:
            return (
                "the server refused the session in CRDBEXPORT_SESSION as no session of its own (400); "
                "take a fresh one from its login, or unset it and give --username"
            )
        return "the session of CRDBEXPORT_SESSION was refused (401); make a new one, or give --username"

    async def _check_health(self) -> None:
        """Nothing secret is sent to an address before it has answered like a node."""

        def judge(reply: Reply) -> None:
            # Balancers and proxies word these in HTML, whatever is behind them.
            telling = reply.status not in TRY_AGAIN and reply.status not in REDIRECTS
            if telling and looks_like_html(reply):
                where = origin(self._transport.sender.base_url)
                raise UnexpectedServerError(f"{where} answered HTML, not JSON; is it a CockroachDB node's address?")
            if reply.status not in (401, 403, 404):
                # Some proxies hide health; the login will tell.
                judged(HEALTH, reply, lambda body: None)

        self._transport.sender.greet = judge
        await self._vital(HEALTH, judge)

    async def _login(self) -> Secret:
        user, password = self._credentials.username or "", self._credentials.password
        fields = {"username": user, "password": password.reveal() if password else ""}
        form = urlencode(fields, errors="surrogateescape").encode()

        def judge(reply: Reply) -> Secret:
            try:
                decoded = judged(LOGIN, reply, msgspec.json.Decoder(_LoginReply).decode)
            except SessionRefusedError:
                raise AuthenticationError(
                    f"login refused for user {shown(user)} at {origin(self._transport.sender.base_url)} (401); check "
                    "the password, and that the role may log in; a cluster without authentication takes --no-login",
                    status=reply.status,
                ) from None
            self._redaction.learn(decoded.session)
            return Secret(decoded.session)

        return await self._vital(LOGIN, judge, headers=FORM, content=form)

    async def _vital(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        try:
            return await self._transport.exchange(endpoint, judge, headers=headers, content=content)
        except UnreadableError as error:
            raise self._transport.end(fatal(error)) from error

    async def _logout(self, token: Secret) -> None:
        """Best effort: what the run achieved does not depend on it."""
        try:
            async with asyncio.timeout(LOGOUT_SECONDS):
                await self._transport.farewell(LOGOUT, _headers(token))
        except (CrdbExportError, TransientError, TimeoutError, OSError) as error:
            log.warning("the session could not be logged out: %s", error, extra={"event": "logout_failed"})


def _headers(token: Secret | None) -> dict[str, str]:
    return {SESSION_HEADER: token.reveal()} if token else {}
