"""The benchmark: `poe bench [--quick] [--scenario NAME]... [--rounds N] [--out FILE]...`.

It wants a machine that does nothing else, and the extra `bench`. Figures of different runs do not compare; the ratios
within one run do.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import reporting
from tests.benchmarks.measuring import ContenderError, Effort
from tests.benchmarks.reporting import Section
from tests.benchmarks.scenarios import cpu, growth, knee, trouble, whole_process, with_latency
from tests.benchmarks.serving import MissingServerError, nginx_version

ROUNDS = 3
SCENARIOS: dict[str, Callable[[Effort], Section]] = {
    "whole": whole_process.run,
    "latency": with_latency.run,
    "growth": growth.run,
    "knee": knee.run,
    "trouble": trouble.run,
    "cpu": cpu.run,
}


def main() -> None:
    given = _arguments()
    # The servers end with their contexts, which a signal would otherwise jump over.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    effort = Effort(given.rounds or (1 if given.quick else ROUNDS), given.quick)
    try:
        around = {**reporting.surroundings(), "nginx": nginx_version()}
        sections = [_told(name, effort) for name in given.scenario or SCENARIOS]
    except (ContenderError, MissingServerError) as error:
        sys.exit(f"bench: {error}")
    for file in given.out:
        reporting.write(file, around, sections)
    print(reporting.markdown(around, sections), end="")


def _told(name: str, effort: Effort) -> Section:
    sys.stderr.write(f"{name}\n")
    return SCENARIOS[name](effort)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="poe bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: shows that it works")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="run this one only; repeatable")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often each is run, by turns; default {ROUNDS}")
    parser.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help="write a report: .md, .json or .png"
    )
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
