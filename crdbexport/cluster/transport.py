"""Requests to one cluster: its addresses, its health, the limit, the pace, the retries, and the count of it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from crdbexport.cluster.breaker import CONTINUE, Breaker
from crdbexport.cluster.endpoint import HEALTH, Endpoint
from crdbexport.cluster.limit import AdaptiveLimit
from crdbexport.cluster.nodes import Nodes
from crdbexport.cluster.pace import Pace, Sleep
from crdbexport.errors import CertificateError, ClusterUnavailableError, CrdbExportError, UnreadableError
from crdbexport.http import HttpClient, NoReplyError, Reply
from crdbexport.report import ConcurrencyCounts, RequestCounts
from crdbexport.retry import RetryBudget, RetryPolicy, TransientError, with_retries

T = TypeVar("T")
Judge = Callable[[Reply], T]

# The statuses of a server, or of what stands before it, that is in trouble: they may pass.
OUT_OF_SERVICE = 503
TRY_AGAIN = frozenset({429, 500, 502, OUT_OF_SERVICE, 504})
# A statement that took too long will not be faster the next time.
ATTEMPTS_AFTER_TIMEOUT = 2
QUIET_SECONDS = 60.0
HEALTH_SECONDS = 15.0
HEALTH_RETRY = RetryPolicy(attempts=3, base_seconds=1.0)

log = logging.getLogger(__name__)


@dataclass
class ClusterTransport:
    """Sends requests to the cluster's base URLs, as many at a time as it takes well, and tries again what may pass.

    `concurrency` is the most of them. A request keeps its place until it is settled, so that a cluster in trouble is
    asked for nothing new meanwhile. A failure that concerns the whole cluster ends every other request at once.
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
        self.counts.concurrency = ConcurrencyCounts()
        self.limit = AdaptiveLimit(self.concurrency, _now, self.counts.concurrency)
        self._nodes = Nodes(self.base_urls, _now)
        self.base_url = self.base_urls[0]
        self._pace = Pace(self.max_rps, _now, self.sleep)
        # Nobody is silent while the pace keeps us from asking.
        self._breaker = Breaker(self._ask_health, QUIET_SECONDS + (1 / self.max_rps if self.max_rps else 0))

    async def exchange(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        """What `judge` makes of the first usable reply; it raises `TransientError` for one to try again."""
        async with self._breaker.watching(), self.limit:
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
        """Raises where nothing answers, or a server in trouble; without a place, for all may be taken for long."""

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
        began = _now()
        try:
            reply = await self._send(endpoint, headers, content)
            now = _now()
            self.limit.answered(endpoint.kind, now - began, now)
            return judge(reply)
        except BaseException as error:
            self.counts.failed += 1
            if isinstance(error, TransientError):
                self._slow_down(error)
            raise

    def _slow_down(self, error: TransientError) -> None:
        """Take the failure for the sign of too many requests that it may be."""
        status = error.final.http_status if isinstance(error.final, UnreadableError) else None
        if error.throttled:
            self.limit.pushed_back("throttled")
            # Who throttles means the client; who is out of service may mean this endpoint alone.
            if error.retry_after:
                self._pace.hold(min(error.retry_after, self.retry.retry_after_cap_seconds))
        elif status == OUT_OF_SERVICE:
            self.limit.pushed_back("unavailable")
        elif isinstance(error.final, UnreadableError) and error.final.reason == "timeout":
            self.limit.pushed_back("timeout")

    async def _send(self, endpoint: Endpoint, headers: Mapping[str, str] | None, content: bytes | None) -> Reply:
        with self._nodes.one() as node:
            self.base_url = base = node.base_url
            url = f"{base}/{endpoint.target}"
            try:
                reply = await self.http.send(endpoint.method, url, headers=headers, content=content)
            except NoReplyError as error:
                if error.trouble in ("connect", "broken"):
                    self._nodes.failed(node)
                raise _no_reply(endpoint, base, error) from error
            except CertificateError as error:
                raise CertificateError(
                    f"{origin(base)}: {error}; give the cluster's authority with --ca-cert FILE"
                ) from error
            if reply.status == OUT_OF_SERVICE:
                self._nodes.failed(node)
            else:
                self._nodes.answered(node)
        status = str(reply.status)
        self.counts.by_status[status] = self.counts.by_status.get(status, 0) + 1
        return reply

    def end(self, error: CrdbExportError) -> CrdbExportError:
        """Let every later request end with this error, or with the one that came before it."""
        return self._breaker.end(error)

    async def _note_failure(self, error: UnreadableError) -> None:
        if error.reason == "too_large" or not (error.http_status is None or error.http_status in TRY_AGAIN):
            # The server answers: whatever is wrong is wrong with this object.
            self._breaker.answered()
        else:
            await self._breaker.failed(error)


def _no_reply(endpoint: Endpoint, base: str, error: NoReplyError) -> Exception:
    where = f"{origin(base)}: {error}"
    if error.trouble == "connect":
        return TransientError(ClusterUnavailableError(f"{where}; check --url and that the node is up; {CONTINUE}"))
    what = f"{endpoint} at {where}"
    if error.trouble == "too_large":
        return UnreadableError(what, reason="too_large")
    if error.trouble == "timeout":
        return TransientError(UnreadableError(what, reason="timeout"), attempts=ATTEMPTS_AFTER_TIMEOUT)
    return TransientError(UnreadableError(what, reason="bad_body"))


def _healthy(reply: Reply) -> None:
    """Whatever else it answers, it is alive: real servers know this path by another name."""
    if reply.status in TRY_AGAIN:
        error = UnreadableError(f"{HEALTH} answered {reply.status}", reason="server_error", http_status=reply.status)
        raise TransientError(error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
