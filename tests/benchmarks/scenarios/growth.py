"""Ten times the tables: what one costs then, and how much memory the process takes."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.contenders import crdbexport
from tests.benchmarks.measuring import Effort, interleaved
from tests.benchmarks.reporting import HEADS, Claim, Section, cells
from tests.benchmarks.slow_server import Behaviour
from tests.benchmarks.watching import middle_of, watched

MOST_MIB = 200


def run(effort: Effort) -> Section:
    small, large = effort.size((50, 200), (10, 20)), effort.size((50, 2000), (10, 200))
    names = {f"crdbexport, {databases * tables:,} tables": (databases, tables) for databases, tables in (small, large)}
    runs = {name: partial(watched, crdbexport(), size, Behaviour()) for name, size in names.items()}
    medians = {name: middle_of(samples)[0] for name, samples in interleaved(runs, effort.rounds).items()}
    each = {name: medians[name].wall_seconds / (size[0] * size[1]) for name, size in names.items()}
    (few, many), (a_few, a_many) = medians.values(), each.values()
    return Section(
        title="Growth",
        setting=f"No added latency, answers rendered as they are asked for, {small[0]} databases each; {effort}.",
        heads=(*HEADS, "ms a table"),
        rows={name: (*cells(measured), each[name] * 1000) for name, measured in medians.items()},
        claims=(
            Claim("time a table, beside that of a tenth of them", a_many / a_few, 1.15, at_most=True),
            Claim("peak memory, beside that of a tenth of the tables", many.peak_mib / few.peak_mib, 1.2, at_most=True),
            Claim("peak MiB", many.peak_mib, MOST_MIB, at_most=True),
        ),
        bars={name: measured.peak_mib for name, measured in medians.items()},
        unit="peak MiB",
    )
