"""A server that refuses what is more than 300 requests a second, and loses one connection in 200: is all still read?"""

from __future__ import annotations

from functools import partial

from tests.benchmarks.contenders import crdbexport
from tests.benchmarks.measuring import Effort, interleaved
from tests.benchmarks.reporting import Section
from tests.benchmarks.slow_server import Behaviour
from tests.benchmarks.watching import middle_of, watched

MAX_RPS = 300
SERVERS = {
    "crdbexport, 429 above 300/s": Behaviour(latency_seconds=0.02, max_rps=MAX_RPS),
    "crdbexport, one in 200 dropped": Behaviour(latency_seconds=0.02, drop_every=200),
}


def run(effort: Effort) -> Section:
    size = effort.size((5, 600), (2, 200))
    export = crdbexport("--concurrency=32")
    runs = {name: partial(watched, export, size, server) for name, server in SERVERS.items()}
    medians = {name: middle_of(samples) for name, samples in interleaved(runs, effort.rounds).items()}
    return Section(
        title="Trouble",
        setting=f"{size[0] * size[1]:,} tables, 20 ms latency, --concurrency 32; every record arrived; {effort}.",
        heads=("answers/s", "answered", "answered 429", "dropped", "wall s"),
        rows={
            name: (told["rate"], told["answered"], told["throttled"], told["dropped"], measured.wall_seconds)
            for name, (measured, told, _) in medians.items()
        },
        bars={name: told["rate"] for name, (_, told, _) in medians.items()},
        unit="answers/s",
    )
