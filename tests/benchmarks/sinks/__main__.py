"""Every sink beside its library's own way: `poe bench-sinks [--records N] [--rounds N] [--sink NAME]... [--out FILE]`.

Each side delivers the same records, in a process of its own, by turns. It wants a machine that does nothing else, and
the extra `dev`. Figures of different runs do not compare; the shares within one do.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks import reporting
from tests.benchmarks.measuring import TRY, ContenderError, interleaved
from tests.benchmarks.reporting import Claim, Section
from tests.benchmarks.serving import MissingServerError
from tests.benchmarks.sinks.catalogue import SUBJECTS, Subject
from tests.benchmarks.sinks.trials import Delivered, Records, prepared

RECORDS, ROUNDS = 1_000_000, 3
LEAST_SHARE, MOST_GROWTH = 0.7, 1.3
DISTRIBUTIONS = ("crdbexport", "msgspec", "pyarrow")
HEADS = ("library's own way", "records/s", "library's", "share", "peak MiB", "library's", "of a quarter")
Trials = Sequence[Mapping[str, Delivered]]


def main() -> None:
    given = _arguments()
    # The servers end with their contexts, which a signal would otherwise jump over.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    subjects = {name: SUBJECTS[name] for name in given.sink or SUBJECTS}
    own = (name for each in subjects.values() for name in each.distributions)
    around = reporting.surroundings([*DISTRIBUTIONS, *own])
    try:
        section = compared(subjects, given.records, given.rounds)
    except (ContenderError, MissingServerError) as error:
        sys.exit(f"bench-sinks: {error}")
    for file in given.out:
        reporting.write(file, around, [section])
    print(reporting.markdown(around, [section]), end="")


def compared(subjects: Mapping[str, Subject], count: int, rounds: int) -> Section:
    """Every mode of every sink, a row each."""
    rows: dict[str, Sequence[float | str]] = {}
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory(prefix="crdbexport-bench-") as directory:
        records = prepared(Path(directory), count, max(len(each.modes) for each in subjects.values()))
        for name, subject in subjects.items():
            sys.stderr.write(f"{name}\n")
            sides = {side: partial(records.trial, subject, side) for side in ("ours", "library")}
            samples: Mapping[str, Trials] = interleaved(sides, rounds)
            quarter = records.trial(subject, "ours", count // 4)
            for mode in subject.modes:
                ours, library = (best([each[mode] for each in samples[side]]) for side in sides)
                share, growth = library.seconds / ours.seconds, ours.peak_mib / quarter[mode].peak_mib
                rates = (count / ours.seconds, count / library.seconds)
                peaks = (ours.peak_mib, library.peak_mib, quarter[mode].peak_mib)
                rows[f"{name}, {mode}"] = (subject.way, *rates, share, *peaks)
                claims.append(Claim(f"{name}, {mode}: share of the library's speed", share, LEAST_SHARE))
                claims.append(
                    Claim(f"{name}, {mode}: peak memory beside a quarter's", growth, MOST_GROWTH, at_most=True)
                )
    shares = {name: float(cells[3]) for name, cells in rows.items()}
    return Section("Sinks", setting(records, rounds), HEADS, rows, shares, "share of the library's speed", claims)


def best(trials: Sequence[Delivered]) -> Delivered:
    """The fastest, for what else a machine does only ever takes time, and the highest peak."""
    return Delivered(min(each.seconds for each in trials), max(each.peak_mib for each in trials))


def setting(records: Records, rounds: int) -> str:
    return (
        f"{records.count:,} records of columns in batches of 2,000, once into an empty target, and where a mode says "
        "so a day later over what stands there, a hundredth of it gone and as much new. Each delivery is a process of "
        "its own, with a server of its own where there is one; the sides take turns. Records are read from a file by "
        f"both; the {records.reading_seconds:.2f} s that it takes are left out, as are start and imports. The speed is "
        f"that of the fastest round of {rounds}, the peak the highest; what was delivered is counted each time. Ours "
        "is made durable, verified and published whole; the library's way does what it does by itself"
        f"{TRY * (records.count < RECORDS)}."
    )


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="poe bench-sinks", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, metavar="N", help=f"for each sink; default {RECORDS:,}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of each side; default {ROUNDS}")
    parser.add_argument("--sink", action="append", choices=list(SUBJECTS), help="measure this one only; repeatable")
    parser.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help="write a report: .md, .json or .png"
    )
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
