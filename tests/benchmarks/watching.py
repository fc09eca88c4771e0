"""Runs of contenders against slow servers, and what the server and a bystander saw of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.bystander import Bystander
from tests.benchmarks.contenders import Contender
from tests.benchmarks.measuring import Measured, middle
from tests.benchmarks.serving import slow_server, tally
from tests.benchmarks.slow_server import Behaviour
from tests.benchmarks.workload import Workload


@dataclass(frozen=True)
class Watched:
    """A run, what the server told of it (`Tally.summary`), and a bystander's latencies while data was asked for."""

    measured: Measured
    tally: dict[str, float]
    bystander: Sequence[float]


def watched(contender: Contender, size: tuple[int, int], behaviour: Behaviour, *, disturbing: bool = False) -> Watched:
    """One run against a fresh server of `size` databases and tables each; `disturbing` adds a bystander."""
    expected = Workload(*size).rows
    with slow_server(*size, behaviour) as url:
        bystander = Bystander(url)
        with bystander if disturbing else nullcontext():
            measured = contender.run(url, expected)
        told = tally(url)
    return Watched(measured, told, bystander.latencies(told["first"], told["last"]))


def undisturbed(behaviour: Behaviour, seconds: float) -> list[float]:
    """The latencies of a bystander who has the server to himself."""
    with slow_server(1, 1, behaviour) as url, Bystander(url) as bystander:
        time.sleep(seconds)
    return bystander.latencies()


def middle_of(runs: Sequence[Watched]) -> tuple[Measured, dict[str, float], list[float]]:
    """The medians of what was measured and told; the bystander's latencies of all runs together."""
    told = {name: median(each.tally[name] for each in runs) for name in runs[0].tally}
    return middle([each.measured for each in runs]), told, [one for each in runs for one in each.bystander]
