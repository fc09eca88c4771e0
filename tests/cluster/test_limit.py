"""The limit on what is under way, against servers that differ in how they take it; the time is simulated.

Each band says where the limit of a good client is, as those of Vector's own tests do.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from crdbexport.cluster.limit import INITIAL, AdaptiveLimit
from crdbexport.report import ConcurrencyCounts, Lowered
from tests.cluster.simulated import now, simulated

CEILING = 32
ROUND_TRIP = 0.05
KNEE = 8
Latency = Callable[["Server"], float]


@dataclass
class Server:
    """Answers after `latency`; above `per_second` it throttles, and every `drops`-th request is let down."""

    latency: Latency
    per_second: float | None = None
    drops: int | None = None
    under_way: int = 0
    most: int = 0
    answered: int = 0
    asked: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    recent: deque[float] = field(default_factory=deque)

    async def ask(self) -> Lowered | None:
        """What is wrong with the answer."""
        self.asked += 1
        number = self.asked
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.latency(self))
        finally:
            self.under_way -= 1
        if self.drops and number % self.drops == 0:
            return "timeout"
        if self.per_second:
            while self.recent and self.recent[0] <= now() - 1:
                self.recent.popleft()
            if len(self.recent) >= self.per_second:
                return "throttled"
            self.recent.append(now())
        self.answered += 1
        return None


def steady(server: Server) -> float:
    return ROUND_TRIP


def jittery(server: Server) -> float:
    return ROUND_TRIP / 2 + server.random.expovariate(2 / ROUND_TRIP)


def wild(server: Server) -> float:
    return server.random.expovariate(1 / ROUND_TRIP)


def knee(server: Server) -> float:
    return ROUND_TRIP * 1.1 ** max(0, server.under_way - KNEE)


def queue(server: Server) -> float:
    """So many workers, and everybody else waits."""
    return ROUND_TRIP * max(1.0, server.under_way / KNEE)


def slower_after_a_while(server: Server) -> float:
    return ROUND_TRIP * (1 if server.asked < 2_000 else 4)


def busy_for_a_while(server: Server) -> float:
    return queue(server) * (4 if 1_000 < server.asked < 1_500 else 1)


@dataclass
class Load:
    """What a client with a limit came to."""

    counts: ConcurrencyCounts
    seconds: float
    server: Server

    @property
    def rate(self) -> float:
        return self.server.answered / self.seconds


def load(server: Server, *, seconds: float = 20, ceiling: int = CEILING, fixed: int | None = None) -> Load:
    """Ask as much as the limit lets us."""
    counts = ConcurrencyCounts()

    async def main() -> None:
        limit = AdaptiveLimit(ceiling, now, counts)
        if fixed:
            limit.value = float(fixed)

        async def work() -> None:
            while now() < seconds:
                async with limit:
                    began = now()
                    wrong = await server.ask()
                    if fixed:
                        continue
                    if wrong:
                        limit.pushed_back(wrong, began)
                    else:
                        limit.answered("a kind", now() - began, now())

        await asyncio.gather(*[work() for _ in range(ceiling + 8)])
        limit.settle()

    simulated(main())
    return Load(counts, seconds, server)


@pytest.mark.parametrize(
    ("server", "mean", "least_rate"),
    [
        pytest.param(Server(steady), (30, 32), 0.94 * CEILING / ROUND_TRIP, id="constant"),
        pytest.param(Server(lambda _: 0.01), (31, 32), 0, id="fast"),
        pytest.param(Server(lambda _: 1.0), (12, 32), 0, id="slow"),
        pytest.param(Server(jittery), (16, 32), 0.5 * CEILING / ROUND_TRIP, id="jittery"),
        pytest.param(Server(wild), (8, 32), 8 / ROUND_TRIP, id="wild"),
        pytest.param(Server(knee), (8, 12), 0.9 * KNEE / ROUND_TRIP, id="knee"),
        pytest.param(Server(queue), (7, 12), 0.9 * KNEE / ROUND_TRIP, id="queue"),
        pytest.param(Server(steady, per_second=200), (1, 14), 150, id="429 over a rate"),
        pytest.param(Server(steady, drops=100), (8, 28), 0, id="drops"),
        pytest.param(Server(slower_after_a_while), (16, 32), 0, id="slower for good"),
        pytest.param(Server(busy_for_a_while), (4, 12), 0, id="busy for a while"),
    ],
)
def test_the_limit_finds_its_band(server: Server, mean: tuple[float, float], least_rate: float) -> None:
    told = load(server)
    assert mean[0] <= told.counts.mean <= mean[1]
    assert told.rate >= least_rate
    assert server.most <= CEILING


def test_a_knee_costs_little_throughput_and_hurts_nobody() -> None:
    ours = load(Server(knee))
    best = max(load(Server(knee), fixed=places).rate for places in range(KNEE, KNEE + 5))
    assert ours.rate >= 0.9 * best
    assert ours.server.latency(ours.server) <= 1.5 * ROUND_TRIP
    assert load(Server(knee), fixed=CEILING).rate < 0.5 * best, "a fixed number is what this is better than"


def test_the_limit_starts_low_and_rises_quickly() -> None:
    told = load(Server(steady), seconds=40 * ROUND_TRIP)
    assert (told.counts.min, told.counts.max) == (INITIAL, CEILING)


@pytest.mark.parametrize("ceiling", [1, 2, 3])
def test_a_low_ceiling_holds(ceiling: int) -> None:
    told = load(Server(steady), seconds=5, ceiling=ceiling)
    assert (told.counts.ceiling, told.counts.max, told.server.most) == (ceiling, ceiling, ceiling)


def test_the_limit_never_falls_below_one() -> None:
    told = load(Server(steady, drops=1), seconds=5)
    assert (told.counts.min, told.counts.last) == (1, 1)
    assert told.server.asked >= 5 / ROUND_TRIP - 1


def test_what_pushed_it_down_is_told() -> None:
    assert load(Server(steady, per_second=200)).counts.lowered.keys() == {"throttled"}
    assert load(Server(steady, drops=100)).counts.lowered.keys() == {"timeout"}
    assert load(Server(queue)).counts.lowered.keys() == {"latency"}
    assert load(Server(steady)).counts.lowered == {}


def test_signs_of_one_round_trip_count_once() -> None:
    limit, clock = limit_at(8)
    for _ in range(5):
        clock[0] += 0.1
        limit.pushed_back("throttled", began=0.0)
    assert limit.places == 4


def test_timeouts_that_began_under_a_higher_limit_say_nothing_of_the_lower_one() -> None:
    limit, clock = limit_at(8)
    clock[0] = 10.0
    limit.pushed_back("timeout", began=0.0)
    clock[0] = 14.0
    limit.pushed_back("timeout", began=4.0)
    assert limit.places == 4
    limit.pushed_back("timeout", began=10.0)
    assert limit.places == 3


def test_kinds_that_differ_in_latency_do_not_pass_for_trouble() -> None:
    async def main() -> float:
        limit = AdaptiveLimit(CEILING, now)

        async def work(number: int) -> None:
            while now() < 30:
                # Lists are slow and rare; they come in bursts.
                kind, seconds = ("list", 0.4) if int(now()) % 5 == 0 and number % 2 else ("details", 0.02)
                async with limit:
                    await asyncio.sleep(seconds)
                    limit.answered(kind, seconds, now())

        await asyncio.gather(*[work(number) for number in range(CEILING)])
        return limit.value

    assert simulated(main()) == CEILING


def test_places_are_given_in_the_order_of_asking() -> None:
    async def main() -> list[int]:
        limit, order = AdaptiveLimit(1, now), []

        async def work(number: int) -> None:
            async with limit:
                order.append(number)
                await asyncio.sleep(1)

        await asyncio.gather(*[work(number) for number in range(10)])
        return order

    assert simulated(main()) == list(range(10))


def test_who_is_cancelled_while_waiting_takes_no_place_with_them() -> None:
    async def main() -> bool:
        limit = AdaptiveLimit(1, now)
        await limit.__aenter__()
        waiting = [asyncio.ensure_future(limit.__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        # The place of this one comes in the very moment in which it is cancelled.
        await limit.__aexit__(None, None, None)
        waiting[1].cancel()
        await asyncio.wait(waiting)
        async with asyncio.timeout(5), limit:
            return all(each.cancelled() for each in waiting)

    assert simulated(main())


def test_newcomers_wait_behind_those_that_wait() -> None:
    async def main() -> list[str]:
        limit, order = AdaptiveLimit(1, now), list[str]()

        async def work(name: str) -> None:
            async with limit:
                order.append(name)

        await limit.__aenter__()
        first = asyncio.ensure_future(work("first"))
        await asyncio.sleep(0)
        await limit.__aexit__(None, None, None)
        # Its place is free, and it has not come to take it.
        await asyncio.gather(work("newcomer"), first)
        return order

    assert simulated(main()) == ["first", "newcomer"]


def test_the_mean_is_over_time() -> None:
    counts, clock = ConcurrencyCounts(), [0.0]
    limit = AdaptiveLimit(4, lambda: clock[0], counts)
    clock[0] = 3.0
    limit.pushed_back("throttled", began=0.0)
    clock[0] = 4.0
    limit.settle()
    assert (counts.min, counts.mean, counts.max, counts.last) == (1, (3 * 2 + 1 * 1) / 4, 2, 1)


def test_a_limit_that_nobody_reaches_does_not_rise() -> None:
    limit, clock = limit_at(8)
    for _ in range(100):
        clock[0] += 0.02
        limit.answered("a kind", 0.02, clock[0])
    assert limit.places == 8


def limit_at(places: int) -> tuple[AdaptiveLimit, list[float]]:
    clock = [0.0]
    limit = AdaptiveLimit(CEILING, lambda: clock[0])
    limit.value = float(places)
    return limit, clock


def test_a_first_look_at_many_answers_is_as_good_as_any() -> None:
    limit, clock = limit_at(CEILING)
    for _ in range(3 * CEILING):
        clock[0] += 0.01
        limit.answered("a kind", 0.02, clock[0])
    assert limit.places == CEILING
