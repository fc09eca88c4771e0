"""Requests to one cluster: its addresses, its health, the limit, the pace, the retries, and the count of it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from crdbexport.cluster.breaker import Breaker
from crdbexport.cluster.endpoint import HEALTH, Endpoint
from crdbexport.cluster.limit import AdaptiveLimit
from crdbexport.cluster.nodes import Node, Nodes
from crdbexport.cluster.pace import Pace, Sleep
from crdbexport.cluster.sending import OUT, OUT_OF_SERVICE, Judge, Sender, origin
from crdbexport.errors import CrdbExportError, UnreadableError
from crdbexport.http import HttpClient, Reply
from crdbexport.report import ConcurrencyCounts, RequestCounts
from crdbexport.retry import RetryBudget, RetryPolicy, TransientError, with_retries

T = TypeVar("T")

# The statuses of a server, or of what stands before it, that is in trouble: they may pass.
TRY_AGAIN = frozenset({429, 500}) | OUT
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
        self.sender = Sender(self.http, Nodes(self.base_urls, _now), self.counts)
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
        tried: list[Node] = []

        async def attempt() -> T:
            await self._pace.turn()
            if self._breaker.error:
                raise self._breaker.error
            self.counts.retried += bool(tried)
            return await self._ask(endpoint, judge, headers, content, tried)

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
        return await self.sender.farewell(endpoint, headers)

    async def _ask_health(self) -> None:
        """Raises where nothing answers, or a server in trouble; without a place, for all may be taken for long."""

        tried: list[Node] = []

        async def ask() -> None:
            try:
                async with asyncio.timeout(HEALTH_SECONDS):
                    await self._ask(HEALTH, _healthy, None, None, tried)
            except TimeoutError as error:
                what = f"{HEALTH} at {origin(self.sender.base_url)}: no answer within {HEALTH_SECONDS:g} s"
                raise TransientError(UnreadableError(what, reason="timeout")) from error

        await with_retries(ask, HEALTH_RETRY, sleep=self.sleep)

    async def _ask(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        headers: Mapping[str, str] | None,
        content: bytes | None,
        tried: list[Node],
    ) -> T:
        began = _now()
        try:
            result = await self.sender.ask(endpoint, judge, headers, content, tried)
        except TransientError as error:
            self._slow_down(error, began)
            raise
        except UnreadableError:
            self._note_latency(endpoint, began)
            raise
        self._note_latency(endpoint, began)
        return result

    def _note_latency(self, endpoint: Endpoint, began: float) -> None:
        now = _now()
        self.limit.answered(endpoint.kind, now - began, now)

    def _slow_down(self, error: TransientError, began: float) -> None:
        """Take the failure for the sign of too many requests that it may be."""
        status = error.final.http_status if isinstance(error.final, UnreadableError) else None
        if error.throttled:
            self.limit.pushed_back("throttled", began)
            # Who throttles means the client; who is out of service may mean this endpoint alone.
            if error.retry_after:
                self._pace.hold(min(error.retry_after, self.retry.retry_after_cap_seconds))
        elif status == OUT_OF_SERVICE:
            self.limit.pushed_back("unavailable", began)
        elif isinstance(error.final, UnreadableError) and error.final.reason == "timeout":
            self.limit.pushed_back("timeout", began)

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


def _now() -> float:
    return asyncio.get_running_loop().time()
