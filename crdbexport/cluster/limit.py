"""How many requests may be under way: as many as the cluster answers without becoming slower, and no more.

After the adaptive request concurrency of Vector: up by one a round trip while the latency holds, down to nine tenths
when the cluster pushes back or becomes slower. Two things differ. At first the limit doubles, for most exports are over
before single steps would have come far. And a latency is held against the best that requests of the same kind have
seen, so that a queue that grows slowly is not taken for how things are; what half as many requests did not mend is not
of our making, and is taken as it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import sqrt
from types import TracebackType

from crdbexport.report import ConcurrencyCounts, Lowered

INITIAL = 2
DOUBLES_UP_TO = 8
"""Beyond that a doubling that goes too far would hurt others."""
DECREASE = 0.9
SMOOTHING = 0.1
"""The weight of the latest round trip in the usual latency of a kind; Vector's 0.4 takes luck for the best there is."""
LEAST_ANSWERS = 4
"""A round trip tells something of the latency when it brought so many answers."""
ENOUGH_ANSWERS = 30
"""The first ones may have been lucky."""
SLOWER = 1.2
"""By what factor answers may be slower than the best ones before the limit goes down."""
DEVIATIONS = 2.5
"""Of the mean of a round trip's answers: what chance may do."""
NOISE_SECONDS = 0.001
"""What a machine that has other work to do may add to any latency."""
ROOM = 0.6
"""The share of what is bearable up to which there is room for more; above it the limit stays as it is."""
LEAST_SECONDS = 1e-6


@dataclass
class _Kind:
    """The latency of one kind of request, in seconds; `best` is the lowest that was usual for a while."""

    best: float = 0.0
    usual: float = 0.0
    latest: float = 0.0
    round_trips: int = 0
    seen: int = 0
    answers: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, seconds: float) -> None:
        self.answers += 1
        self.total += seconds
        self.squares += seconds * seconds

    def close(self) -> tuple[float, float, float]:
        """Of this round trip: the seconds that it took, what the best would have taken, and the variance."""
        self.latest = mean = max(self.total / self.answers, LEAST_SECONDS)
        self.round_trips += 1
        self.usual += max(SMOOTHING, 1 / self.round_trips) * (mean - self.usual)
        self.seen += self.answers
        self.best = min(self.best, self.usual) if self.best and self.seen > ENOUGH_ANSWERS else self.usual
        closed = (mean * self.answers, self.best * self.answers, max(0.0, self.squares - mean * mean * self.answers))
        self.answers, self.total, self.squares = 0, 0.0, 0.0
        return closed


class AdaptiveLimit:
    """Places for requests, for one event loop: between 1 and `ceiling`, given to those that wait in their order.

    Use it as a context manager around a request, and tell it what came: `answered`, or `pushed_back`.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float], counts: ConcurrencyCounts | None = None) -> None:
        self.value = float(min(INITIAL, ceiling))
        self._ceiling, self._clock = ceiling, clock
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._kinds: dict[Hashable, _Kind] = {}
        self._touched: set[Hashable] = set()
        self._doubling = True
        self._answers = 0
        self._round_trip = 0.0
        self._began = self._counts_from = clock()
        self._reached = self._lowered = False
        self._lowered_at = float("-inf")
        self._slow_since: float | None = None
        self._account = _Account(counts or ConcurrencyCounts(), clock)
        self._account.counts.ceiling = ceiling
        self._account.note(self.places)

    @property
    def places(self) -> int:
        """How many requests may be under way now."""
        return int(self.value)

    async def __aenter__(self) -> None:
        if self._under_way < self.places and not self._waiting:
            self._take()
            return
        self._reached = True
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                self._leave()  # The place came together with the end of the wait.
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def answered(self, kind: Hashable, seconds: float, now: float) -> None:
        """A usable answer came now, after so long."""
        if now < self._counts_from:
            return  # Of those that were asked for since the limit changed, the quick ones come first.
        self._kinds.setdefault(kind, _Kind()).add(seconds)
        self._touched.add(kind)
        self._answers += 1
        if self._answers >= max(LEAST_ANSWERS, self.places) and now - self._began >= self._round_trip:
            self._end_round_trip(now)

    def pushed_back(self, why: Lowered, began: float) -> None:
        """The cluster asked for less, or let a request down that began then: under this limit, or it tells nothing."""
        if began >= self._lowered_at:
            self._lower(why)

    def settle(self) -> None:
        """Bring the account up to date: no more requests come."""
        self._account.note(self.places)

    def _end_round_trip(self, now: float) -> None:
        closed = [self._kinds[each].close() for each in self._touched]
        self._touched.clear()
        took, at_best, variance = (sum(column) for column in zip(*closed, strict=True))
        self._round_trip = took / self._answers
        chance = max(SLOWER - 1, DEVIATIONS * sqrt(variance) / at_best)
        noise = NOISE_SECONDS * self._answers / at_best
        self._answers, self._began = 0, now
        reached, self._reached = self._reached, False
        lowered, self._lowered = self._lowered, False
        if not lowered:
            self._judge(took / at_best - 1, chance + noise, reached)

    def _judge(self, slower_by: float, bearable: float, reached: bool) -> None:
        """Change the limit by how much slower this round trip was than the best ones."""
        if slower_by > bearable:
            self._slow_down()
        elif slower_by <= bearable * ROOM:
            self._slow_since = None
            if reached:
                self._raise()

    def _raise(self) -> None:
        self._doubling = self._doubling and self.value < DOUBLES_UP_TO
        self._set(min(self.value * 2, DOUBLES_UP_TO) if self._doubling else self.value + 1)

    def _slow_down(self) -> None:
        self._slow_since = self._slow_since or self.value
        if self.value > max(1.0, self._slow_since / 2):
            self._lower("latency")
        else:
            self._slow_since = None
            for each in self._kinds.values():
                each.best = each.usual = each.latest

    def _lower(self, why: Lowered) -> None:
        self._lowered, self._lowered_at = True, self._clock()
        if self.value > 1:
            self._account.lowered[why] += 1
        # The last doubling went too far: somewhere between is what there is room for.
        self._set(self.value / 2 if self._doubling else self.value * DECREASE)
        self._doubling = False

    def _set(self, value: float) -> None:
        before, self.value = self.value, min(max(value, 1.0), float(self._ceiling))
        if not 0 <= self.value - before <= 1:
            self._began = self._counts_from = self._clock() + self._round_trip
        self._account.note(self.places)
        self._let_in()

    def _take(self) -> None:
        self._under_way += 1
        self._reached = self._reached or self._under_way >= self.places

    def _leave(self) -> None:
        self._under_way -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._under_way < self.places:
            place = self._waiting.popleft()
            if not place.done():
                self._take()
                place.set_result(None)


@dataclass
class _Account:
    """Keeps the account of the limit up to date: its mean is over time."""

    counts: ConcurrencyCounts
    clock: Callable[[], float]
    lowered: Counter[Lowered] = field(default_factory=Counter)
    _began: float | None = None
    _at: float = 0.0
    _sum: float = 0.0

    def note(self, places: int) -> None:
        """The limit is this from now on."""
        counts, now = self.counts, self.clock()
        if self._began is None:
            self._began = now
            counts.min = counts.max = places
        else:
            self._sum += counts.last * (now - self._at)
        self._at = now
        counts.last, counts.min, counts.max = places, min(counts.min, places), max(counts.max, places)
        passed = now - self._began
        counts.mean = round(self._sum / passed, 2) if passed else float(places)
        counts.lowered = dict(self.lowered)
