"""Where an export's CPU time goes: by thread, and in its busiest thread by module and function."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.contenders import RUN, crdbexport
from tests.benchmarks.measuring import Effort, interleaved
from tests.benchmarks.reporting import Claim, Section
from tests.benchmarks.serving import nginx
from tests.benchmarks.workload import Workload

SINKS = ("parquet", "jsonl")
MOST_SHARE = 0.15
LEAST_SHARE_TOLD = 0.005


def run(effort: Effort) -> Section:
    """The share of a sink is that of its whole thread: reading the spool, encoding, hashing and publishing."""
    workload = Workload(*effort.size((50, 200), (10, 40)))
    with tempfile.TemporaryDirectory(prefix="crdbexport-bench-") as directory:
        work = Path(directory)
        with nginx(work, workload) as url:
            account = partial(accounted, work / "cpu.json", url, workload.rows)
            samples = interleaved({sink: partial(account, sink) for sink in SINKS}, effort.rounds)
            medians = {sink: _middle([by_thread(each) for each in told]) for sink, told in samples.items()}
            busiest = max(medians["parquet"], key=medians["parquet"].__getitem__)
            profile = account("parquet", f"--profile={busiest}")
    threads = dict.fromkeys(name for each in medians.values() for name in each)
    rows = {f"thread {name}": tuple(medians[sink].get(name, "") for sink in SINKS) for name in threads}
    rows |= _profile_rows(busiest, profile)
    encoding = {sink: medians[sink][f"crdbexport-sink-{sink}"] for sink in SINKS}
    return Section(
        title="Where the CPU time goes",
        setting=(
            f"{workload.tables:,} tables from nginx, no added latency. By thread: shares of the process, into Parquet "
            f"and into JSON Lines; {effort}. By module (own time, C functions included) and function (with all that it "
            f"calls): shares of the thread {busiest}, of one run into Parquet under cProfile, which makes Python "
            "functions weigh more."
        ),
        heads=("Parquet", "JSON Lines"),
        rows=rows,
        claims=[
            Claim(f"share of the thread of {sink}, encoding included", share, MOST_SHARE, at_most=True)
            for sink, share in encoding.items()
        ],
        bars=medians["parquet"],
        unit="share of the process, into Parquet",
    )


def accounted(file: Path, url: str, expected: Mapping[str, int], sink: str, *options: str) -> dict[str, Any]:
    """One export under `profiled`: what it tells."""
    program = (*RUN, "tests.benchmarks.profiled", str(file), *options, "--")
    crdbexport(sink=sink, program=program).run(url, expected)
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def by_thread(account: dict[str, Any]) -> dict[str, float]:
    return {name: seconds / account["seconds"] for name, seconds in account["threads"].items()}


def _middle(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(each.get(name, 0.0) for each in samples) for name in samples[0]}


def _profile_rows(thread: str, profile: dict[str, Any]) -> dict[str, tuple[float | str, ...]]:
    total = profile["threads"][thread]
    kinds = {"module": profile["modules"], "function": profile["functions"]}
    shares = {f"{kind} {name}": own / total for kind, each in kinds.items() for name, own in each.items()}
    return {name: (share, "") for name, share in shares.items() if share >= LEAST_SHARE_TOLD}
