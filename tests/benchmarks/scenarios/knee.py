"""A server whose latency rises steeply above 8 requests in flight: is it used fully, and left usable for others?"""

from __future__ import annotations

from functools import partial

from tests.benchmarks.bystander import p99
from tests.benchmarks.contenders import crdbexport, floor
from tests.benchmarks.measuring import Effort, interleaved
from tests.benchmarks.reporting import Claim, Section
from tests.benchmarks.slow_server import STEEPNESS, Behaviour
from tests.benchmarks.watching import middle_of, undisturbed, watched

CEILING = 32
SERVER = Behaviour(latency_seconds=0.02, knee=8)
OURS, FIXED = f"crdbexport --concurrency {CEILING}", f"fixed {CEILING}"
SWEEP = (1, 2, 4, 6, 8, 10, 12, 16, 24)
QUICK_SWEEP = (4, 8, 12)


def best_fixed(effort: Effort) -> tuple[int, float]:
    """The fixed concurrency that the server serves fastest, and that rate."""
    size = effort.size((5, 100), (2, 40))
    tried = QUICK_SWEEP if effort.quick else SWEEP
    rates = {number: watched(floor(number), size, SERVER).tally["settled_rate"] for number in tried}
    best = max(tried, key=rates.__getitem__)
    return best, rates[best]


def run(effort: Effort) -> Section:
    best, best_rate = best_fixed(effort)
    size = effort.size((10, 300), (2, 100))
    contenders = {OURS: crdbexport(f"--concurrency={CEILING}"), f"fixed {best}": floor(best), FIXED: floor(CEILING)}
    runs = {name: partial(watched, each, size, SERVER, disturbing=True) for name, each in contenders.items()}
    idle = p99(undisturbed(SERVER, 1.0 if effort.quick else 20.0))
    medians = {name: middle_of(samples) for name, samples in interleaved(runs, effort.rounds).items()}
    rates = {name: told["settled_rate"] for name, (_, told, _) in medians.items()}
    waits = {"idle": idle, **{name: p99(seconds) for name, (_, _, seconds) in medians.items()}}
    in_flight = {name: told["most_in_flight"] for name, (_, told, _) in medians.items()}
    return Section(
        title="A knee at 8 requests in flight",
        setting=(
            f"{size[0] * size[1]:,} tables, 20 ms latency, times {STEEPNESS:g} for each request above the knee. A "
            f"bystander sends 10 requests/s meanwhile. The fixed ones are the floor script; {effort}."
        ),
        heads=("requests/s, settled", "most in flight, bystander included", "bystander's p99, ms", "beside idle"),
        rows={
            name: (rates.get(name, ""), in_flight.get(name, ""), wait * 1000, wait / idle)
            for name, wait in waits.items()
        },
        claims=(
            Claim("settled rate, beside the best of any fixed concurrency", rates[OURS] / best_rate, 0.9),
            Claim("bystander's p99, beside idle", waits[OURS] / idle, 1.5, at_most=True),
            Claim(f"bystander's p99 with a fixed {CEILING}, beside idle", waits[FIXED] / idle, 3),
        ),
        bars={name: wait * 1000 for name, wait in waits.items()},
        unit="bystander's p99 in ms",
    )
