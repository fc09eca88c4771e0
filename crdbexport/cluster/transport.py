"""Requests to one cluster: its addresses, its health, the ceiling, the pace, the retries, and the count of it all."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

from crdbexport.cluster.breaker import CONTINUE, Breaker
from crdbexport.errors import CertificateError, ClusterUnavailableError, CrdbExportError, UnreadableError
from crdbexport.http import HttpClient, NoReplyError, Reply
from crdbexport.report import RequestCounts
from crdbexport.retry import RetryBudget, RetryPolicy, TransientError, with_retries

T = TypeVar("T")
Judge = Callable[[Reply], T]
Sleep = Callable[[float], Awaitable[None]]

# The statuses of a server, or of what stands before it, that is in trouble: they may pass.
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
# A statement that took too long will not be faster the next time.
ATTEMPTS_AFTER_TIMEOUT = 2
QUIET_SECONDS = 60.0
HEALTH_SECONDS = 15.0
HEALTH_RETRY = RetryPolicy(attempts=3, base_seconds=1.0)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """A method and a path below the base URL, as segments; each segment is percent-encoded as a whole.

    `query` is for numbers alone, and is sent but never shown.
    """

    method: str
    segments: tuple[str, ...]
    trailing_slash: bool = False
    query: tuple[tuple[str, int], ...] = ()

    @property
    def path(self) -> str:
        return "/".join(map(_encoded, self.segments)) + ("/" if self.trailing_slash else "")

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


HEALTH = Endpoint("GET", ("health",))


@dataclass
class Pace:
    """Spaces requests evenly, at most `per_second`; `hold` stops them all for a while."""

    per_second: float | None
    clock: Callable[[], float]
    sleep: Sleep
    _next: float = 0.0

    async def turn(self) -> None:
        now = self.clock()
        mine = max(self._next, now)
        if self.per_second:
            self._next = mine + 1 / self.per_second
        if mine > now:
            await self.sleep(mine - now)

    def hold(self, seconds: float) -> None:
        self._next = max(self._next, self.clock() + seconds)


@dataclass
class ClusterTransport:
    """Sends requests to the cluster's base URLs under a ceiling, and tries again what may pass.

    A request keeps its place under the ceiling until it is settled, so that a cluster in trouble is asked for nothing
    new meanwhile. A failure that concerns the whole cluster ends every other request, so that a run stops soon.
    """

    http: HttpClient
    base_urls: Sequence[str]
    concurrency: int
    max_rps: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    budget: RetryBudget = field(default_factory=RetryBudget)
    sleep: Sleep = asyncio.sleep
    counts: RequestCounts = field(default_factory=RequestCounts)

    def __post_init__(self) -> None:
        self._ceiling = asyncio.Semaphore(self.concurrency)
        self._pace = Pace(self.max_rps, lambda: asyncio.get_running_loop().time(), self.sleep)
        # Nobody is silent while the pace keeps us from asking.
        self._breaker = Breaker(self._ask_health, QUIET_SECONDS + (1 / self.max_rps if self.max_rps else 0))
        self._base = 0

    async def exchange(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        """What `judge` makes of the first usable reply; it raises `TransientError` for one to try again."""
        async with self._breaker.watching(), self._ceiling:
            try:
                result = await self._tried(endpoint, judge, headers, content)
            except UnreadableError as error:
                await self._note_failure(error)
                raise
            except CrdbExportError as error:
                self.end(error)
                raise
            self._breaker.answered()
            return result

    async def _tried(
        self, endpoint: Endpoint, judge: Judge[T], headers: Mapping[str, str] | None, content: bytes | None
    ) -> T:
        attempts = 0

        async def attempt() -> T:
            nonlocal attempts
            await self._pace.turn()
            if self._breaker.error:
                raise self._breaker.error
            attempts += 1
            self.counts.retried += attempts > 1
            return await self._ask(endpoint, judge, headers, content)

        def tell(error: TransientError, seconds: float) -> None:
            log.info(
                "%s; trying again in %.1f s",
                error,
                seconds,
                extra={"event": "retry", "endpoint": str(endpoint)},
            )

        return await with_retries(attempt, self.retry, budget=self.budget, on_retry=tell, sleep=self.sleep)

    async def farewell(self, endpoint: Endpoint, headers: Mapping[str, str]) -> Reply:
        """One last request, sent once and even after the end of everything else."""
        self.counts.total += 1
        return await self._send(endpoint, headers, None)

    async def _ask_health(self) -> None:
        """Raises where nothing answers, or a server in trouble; not under the ceiling, which may be taken for long."""

        async def ask() -> None:
            try:
                async with asyncio.timeout(HEALTH_SECONDS):
                    await self._ask(HEALTH, _healthy)
            except TimeoutError as error:
                what = f"{HEALTH} at {origin(self.base_url)}: no answer within {HEALTH_SECONDS:g} s"
                raise TransientError(UnreadableError(what, reason="timeout")) from error

        await with_retries(ask, HEALTH_RETRY, sleep=self.sleep)

    async def _ask(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        self.counts.total += 1
        try:
            return judge(await self._send(endpoint, headers, content))
        except BaseException as error:
            self.counts.failed += 1
            # Who throttles means the client; who is out of service may mean this endpoint alone.
            if isinstance(error, TransientError) and error.throttled and error.retry_after:
                self._pace.hold(min(error.retry_after, self.retry.retry_after_cap_seconds))
            raise

    async def _send(self, endpoint: Endpoint, headers: Mapping[str, str] | None, content: bytes | None) -> Reply:
        base = self.base_url
        try:
            reply = await self.http.send(endpoint.method, f"{base}/{endpoint.target}", headers=headers, content=content)
        except NoReplyError as error:
            raise self._no_reply(endpoint, base, error) from error
        except CertificateError as error:
            raise CertificateError(
                f"{origin(base)}: {error}; give the cluster's authority with --ca-cert FILE"
            ) from error
        status = str(reply.status)
        self.counts.by_status[status] = self.counts.by_status.get(status, 0) + 1
        return reply

    def _no_reply(self, endpoint: Endpoint, base: str, error: NoReplyError) -> Exception:
        where = f"{origin(base)}: {error}"
        if error.trouble == "connect":
            # Of the requests that fail side by side, one moves on to the next address.
            self._base += base == self.base_url
            return TransientError(ClusterUnavailableError(f"{where}; check --url and that the node is up; {CONTINUE}"))
        what = f"{endpoint} at {where}"
        if error.trouble == "too_large":
            return UnreadableError(what, reason="too_large")
        if error.trouble == "timeout":
            return TransientError(UnreadableError(what, reason="timeout"), attempts=ATTEMPTS_AFTER_TIMEOUT)
        return TransientError(UnreadableError(what, reason="bad_body"))

    @property
    def base_url(self) -> str:
        """The address that is asked at present."""
        return self.base_urls[self._base % len(self.base_urls)]

    def end(self, error: CrdbExportError) -> CrdbExportError:
        """Let every later request end with this error, or with the one that came before it."""
        return self._breaker.end(error)

    async def _note_failure(self, error: UnreadableError) -> None:
        if error.reason == "too_large" or not (error.http_status is None or error.http_status in TRY_AGAIN):
            # The server answers: whatever is wrong is wrong with this object.
            self._breaker.answered()
        else:
            await self._breaker.failed(error)


def _healthy(reply: Reply) -> None:
    """Whatever else it answers, it is alive: real servers know this path by another name."""
    if reply.status in TRY_AGAIN:
        error = UnreadableError(f"{HEALTH} answered {reply.status}", reason="server_error", http_status=reply.status)
        raise TransientError(error)


@functools.lru_cache(maxsize=1024)
def _encoded(segment: str) -> str:
    return quote(segment, safe="")


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
