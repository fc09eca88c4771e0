"""One side's deliveries to a place of its own, and what they took."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import ContenderError, measure
from tests.benchmarks.serving import started
from tests.benchmarks.sinks.catalogue import Subject

MODULE = "tests.benchmarks.sinks"
# As the command line of crdbexport sets it; libraries gain by it, too.
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


@dataclass(frozen=True)
class Delivered:
    """One run's delivery: the seconds without those of reading the records, and the peak of the process."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Records:
    """The files of the runs, and what reading the first one to its end takes."""

    files: tuple[Path, ...]
    count: int
    reading_seconds: float

    def trial(self, subject: Subject, side: str, count: int | None = None) -> dict[str, Delivered]:
        """Deliver one run after the other to a new place; by mode."""
        wanted = count or self.count
        found = {}
        with _place() as directory, _server(subject) as address:
            for step, mode in enumerate(subject.modes):
                told = _run(
                    self.files[step],
                    wanted,
                    module=subject.module,
                    side=side,
                    directory=str(directory / "to"),
                    address=address,
                    mode=mode,
                    step=step,
                )
                if told["found"] != {told["run_id"]: wanted}:
                    raise ContenderError(f"{subject.module}, {side}: {mode} left {told['found']} of {wanted} records")
                net = told["seconds"] - self.reading_seconds * wanted / self.count
                found[mode] = Delivered(net, told["peak_mib"])
        return found


def prepared(directory: Path, count: int, steps: int) -> Records:
    """Write the records of so many runs, and find out what reading takes."""
    files = tuple(directory / f"run-{step + 1}.arrows" for step in range(steps))
    for step, file in enumerate(files):
        measure([sys.executable, "-m", f"{MODULE}.records", str(file), str(step), str(count)], directory / "log")
    task = {"module": "parquet", "side": "reading", "directory": "", "address": "", "mode": "", "step": 0}
    return Records(files, count, min(_run(files[0], count, **task)["seconds"] for _ in range(3)))


def _run(source: Path, count: int, **task: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{MODULE}.side", json.dumps({**task, "source": str(source), "count": count})]
    with tempfile.NamedTemporaryFile(prefix="crdbexport-bench-") as log:
        measure(command, Path(log.name), ENVIRONMENT)
        told: dict[str, Any] = json.loads(Path(log.name).read_bytes().splitlines()[-1])
        return told


@contextmanager
def _place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="crdbexport-bench-"))
    try:
        (directory / "to").mkdir()
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def _server(subject: Subject) -> Iterator[str]:
    if not subject.server:
        yield ""
        return
    with started(f"{MODULE}.servers", subject.server) as address:
        yield address
