"""A contender's run as a whole process: its time on the wall, its CPU time, its peak memory, and its rows counted."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from tests.benchmarks.serving import ROOT

Sample = TypeVar("Sample")

TIMEOUT_SECONDS = 1800
TRY = ", **a quick try: no figure to quote**"
LINES_SHOWN = 15
MIB_OF_MAXRSS = 2**20 if sys.platform == "darwin" else 2**10


class ContenderError(Exception):
    """A contender failed, or came out with other rows than were to be read: its figures are worth nothing."""


@dataclass(frozen=True)
class Measured:
    """One run; the memory is the largest resident set of the process, or of a child that it waited for."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure."""

    rounds: int
    quick: bool

    def size(self, thorough: tuple[int, int], quick: tuple[int, int]) -> tuple[int, int]:
        """How many databases, and tables in each."""
        return quick if self.quick else thorough

    def __str__(self) -> str:
        return ("one round" if self.rounds == 1 else f"medians of {self.rounds} rounds by turns") + TRY * self.quick


def measure(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end; raises `ContenderError` with the end of its output where it fails."""
    own_peak = _peak_mib(resource.getrusage(resource.RUSAGE_SELF))
    with log.open("wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
        status, usage = _waited_for(process.pid)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-LINES_SHOWN:])
        raise ContenderError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
    peak = _peak_mib(usage)
    if peak <= own_peak:
        # A child begins with its parent's peak as its own.
        raise ContenderError(f"its peak of {peak:.0f} MiB cannot be told from the benchmark's own {own_peak:.0f} MiB")
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak)


def _waited_for(pid: int) -> tuple[int, resource.struct_rusage]:
    def give_up(*args: object) -> None:
        os.kill(pid, signal.SIGKILL)

    earlier = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        _, status, usage = os.wait4(pid, 0)
        return status, usage
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def _peak_mib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / MIB_OF_MAXRSS


def interleaved(runs: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Each run `rounds` times, by turns, so that a machine that slows down slows them all."""
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            sys.stderr.write(f"  round {number} of {rounds}: {name}\n")
            samples[name].append(run())
    return samples


def middle(runs: Sequence[Measured]) -> Measured:
    """The median of each figure."""
    return Measured(
        median(each.wall_seconds for each in runs),
        median(each.cpu_seconds for each in runs),
        median(each.peak_mib for each in runs),
    )
