"""A whole export at no added latency: crdbexport beside dlt and the floor."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.contenders import crdbexport, dlt, floor
from tests.benchmarks.measuring import Effort, interleaved, middle
from tests.benchmarks.reporting import HEADS, Claim, Section, cells
from tests.benchmarks.serving import nginx
from tests.benchmarks.workload import Workload

CONTENDERS = {
    "crdbexport": crdbexport(),
    "dlt": dlt(parallel=False),
    "dlt, parallel": dlt(parallel=True),
    "floor": floor(),
}


def run(effort: Effort) -> Section:
    workload = Workload(*effort.size((50, 200), (10, 40)))
    with tempfile.TemporaryDirectory(prefix="crdbexport-bench-") as directory, nginx(Path(directory), workload) as url:
        runs = {name: partial(each.run, url, workload.rows) for name, each in CONTENDERS.items()}
        medians = {name: middle(samples) for name, samples in interleaved(runs, effort.rounds).items()}
    ours, base = medians["crdbexport"], medians["floor"]
    best = min((medians["dlt"], medians["dlt, parallel"]), key=lambda each: each.wall_seconds)
    least = min(medians["dlt"].peak_mib, medians["dlt, parallel"].peak_mib)
    return Section(
        title="Whole process, no added latency",
        setting=f"{sum(1 for _ in workload.paths()):,} answers from nginx into Parquet; {effort}.",
        heads=(*HEADS, "wall / floor"),
        rows={name: (*cells(each), each.wall_seconds / base.wall_seconds) for name, each in medians.items()},
        claims=(
            Claim("times faster than dlt's faster mode", best.wall_seconds / ours.wall_seconds, 5),
            Claim("times the wall time of the floor", ours.wall_seconds / base.wall_seconds, 2.5, at_most=True),
            Claim("peak memory as a share of dlt's", ours.peak_mib / least, 1, at_most=True),
        ),
        bars={name: each.wall_seconds for name, each in medians.items()},
        unit="seconds",
    )
