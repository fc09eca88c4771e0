"""An export from a server that takes 20 ms for each answer: how much of what the connections could carry is used."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.contenders import crdbexport, dlt, floor
from tests.benchmarks.measuring import Effort, interleaved
from tests.benchmarks.reporting import Claim, Section
from tests.benchmarks.slow_server import Behaviour
from tests.benchmarks.watching import middle_of, watched

LATENCY_SECONDS = 0.02
CONCURRENCY = 32
CEILING = CONCURRENCY / LATENCY_SECONDS
DLT_PARALLEL = "dlt, parallel"
CONTENDERS = {
    f"crdbexport --concurrency {CONCURRENCY}": crdbexport(f"--concurrency={CONCURRENCY}"),
    "dlt": dlt(parallel=False),
    DLT_PARALLEL: dlt(parallel=True),
    f"dlt, parallel, {CONCURRENCY} workers": dlt(parallel=True, workers=CONCURRENCY),
    f"floor, {CONCURRENCY} connections": floor(CONCURRENCY),
}


def run(effort: Effort) -> Section:
    size = effort.size((5, 200), (2, 100))
    server = Behaviour(latency_seconds=LATENCY_SECONDS)
    runs = {name: partial(watched, each, size, server) for name, each in CONTENDERS.items()}
    medians = {name: middle_of(samples) for name, samples in interleaved(runs, effort.rounds).items()}
    rates = {name: told["settled_rate"] for name, (_, told, _) in medians.items()}
    ours = next(iter(rates.values()))
    return Section(
        title="20 ms latency",
        setting=(
            f"{size[0] * size[1]:,} tables; {CONCURRENCY} connections could carry {CEILING:,.0f} requests/s. The "
            f"settled rate is that of the later half of the answers; {effort}."
        ),
        heads=("requests/s, settled", "share of ceiling", "requests/s", "wall s", "most in flight"),
        rows={
            name: (rates[name], rates[name] / CEILING, told["rate"], measured.wall_seconds, told["most_in_flight"])
            for name, (measured, told, _) in medians.items()
        },
        claims=(
            Claim("share of ceiling / latency, settled", ours / CEILING, 0.85),
            Claim("times dlt's parallel mode, settled", ours / rates[DLT_PARALLEL], 7),
        ),
        bars=rates,
        unit="requests/s, settled",
    )
