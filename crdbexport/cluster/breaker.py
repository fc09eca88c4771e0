"""When to give a cluster up: a run on a dead one ends soon, and one on a slow one goes on.

Failures alone do not tell the two apart: a server that answers 500 may be dead or be asked for views, and one that is
silent may be dead or at work on a long statement. Its health, which costs it nothing, does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from crdbexport.errors import ClusterUnavailableError, CrdbExportError, LookAgainError, UnreadableError

FAILURES_FOR_DOUBT = 3
FAILURES_IN_A_ROW = 20
LEAST_WAIT_SECONDS = 0.01
CONTINUE = "the same command continues later"


@dataclass
class _Row:
    """Objects that failed one after the other, without a usable answer in between."""

    length: int = 0
    doubtful_at: int = FAILURES_FOR_DOUBT

    @property
    def doubtful(self) -> bool:
        return self.length >= self.doubtful_at

    def explained(self) -> None:
        """The cluster is in good health: what fails is what was asked for."""
        if self.doubtful:
            self.doubtful_at = self.length + FAILURES_IN_A_ROW


class _Watched:
    """One wait; a class of its own, for a generator costs several times as much for each request."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker, self._scope = breaker, asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._breaker.enter(self._scope)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker.leave(self._scope)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._scope.expired() and self._breaker.error:
                raise self._breaker.error from None
            raise


class Breaker:
    """Ends the run of a cluster that is dead; once there is an `error`, nothing is to be sent any more.

    `ask_health` is called when `FAILURES_FOR_DOUBT` objects in a row have failed, or when there was no usable answer
    for `quiet_seconds`; the run ends if it raises. `FAILURES_IN_A_ROW` objects end it whatever the health, unless they
    failed as views do.
    """

    def __init__(self, ask_health: Callable[[], Awaitable[None]], quiet_seconds: float) -> None:
        self.error: CrdbExportError | None = None
        self._ask_health, self._may_be_quiet_for = ask_health, quiet_seconds
        self._asking = asyncio.Lock()
        self._alive_at: float | None = None
        self._failures, self._like_views = _Row(), _Row()
        self._waiting: set[asyncio.Timeout] = set()
        self._watch: asyncio.Future[None] | None = None

    def end(self, error: CrdbExportError) -> CrdbExportError:
        """Let everything end with this error, or with the one that came before it."""
        self.error = self.error or error
        return self.error

    def answered(self) -> None:
        """The cluster has given a usable answer, be it that there is no such object."""
        self._alive_at = _now()
        self._failures, self._like_views = _Row(), _Row()

    async def failed(self, error: UnreadableError) -> None:
        """A cluster in trouble could not answer for an object, however often it was asked."""
        row = self._like_views if isinstance(error, LookAgainError) else self._failures
        row.length += 1
        if self._failures.length >= FAILURES_IN_A_ROW:
            what = f"{self._failures.length} objects in a row could not be read (the last: {error})"
            raise self.end(ClusterUnavailableError(f"{what}; {CONTINUE}"))
        await self._see_to_doubts()

    def watching(self) -> AbstractAsyncContextManager[None]:
        """Whatever waits for the cluster within ends as soon as the cluster turns out to be dead."""
        return _Watched(self)

    def enter(self, scope: asyncio.Timeout) -> None:
        self._waiting.add(scope)
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._watch_over())

    def leave(self, scope: asyncio.Timeout) -> None:
        self._waiting.discard(scope)
        if self._watch is not None and not self._waiting:
            self._watch.cancel()
            self._watch = None

    async def _watch_over(self) -> None:
        try:
            while True:
                # Waking up a rounding error too early must not lead to a wait of none.
                await asyncio.sleep(max(LEAST_WAIT_SECONDS, self._may_be_quiet_for - self._quiet_seconds()))
                await self._see_to_doubts()
        except CrdbExportError:
            for scope in self._waiting:
                scope.reschedule(_now())

    async def _see_to_doubts(self) -> None:
        async with self._asking:
            if self.error:
                raise self.error
            if not self._doubtful():
                return
            asked_at = _now()
            try:
                await self._ask_health()
            except CrdbExportError as error:
                if self._alive_at is None or self._alive_at <= asked_at:
                    raise self.end(self._dead(error)) from error
            else:
                self._alive_at = _now()
                self._failures.explained()
                self._like_views.explained()

    def _doubtful(self) -> bool:
        in_a_row = self._failures.doubtful or self._like_views.doubtful
        return in_a_row or self._quiet_seconds() >= self._may_be_quiet_for

    def _quiet_seconds(self) -> float:
        if self._alive_at is None:
            self._alive_at = _now()
        return _now() - self._alive_at

    def _dead(self, error: CrdbExportError) -> CrdbExportError:
        if not isinstance(error, UnreadableError):
            return error
        what = f"there was no usable answer for {self._quiet_seconds():.0f} s"
        in_a_row = self._failures.length + self._like_views.length
        if in_a_row >= FAILURES_FOR_DOUBT:
            what = f"{in_a_row} objects in a row could not be read"
        return ClusterUnavailableError(f"{what}, and the cluster is not in good health ({error}); {CONTINUE}")


def _now() -> float:
    return asyncio.get_running_loop().time()
