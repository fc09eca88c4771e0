"""Run as a script: a process that has imported everything, and forks a run for each line that it is told.

A line in is a `Job`; lines out are the process id of the run, then an `Ended`.
"""

from __future__ import annotations

import errno
import faulthandler
import functools
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

HANGING_SECONDS = 60.0
BUG = 99
NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
CONCURRENCY = 3
BATCH_ROWS = 50
# What a disk does when it is full, and what a process cannot do when it has no descriptors left.
NEEDS_SPACE = frozenset({"open for writing", "os.mkdir", "os.rename", "fsync", "write"})
NEEDS_DESCRIPTOR = frozenset({"open", "open for writing", "os.listdir", "os.scandir", "sqlite3.connect"})
ON_FILES = NEEDS_SPACE | NEEDS_DESCRIPTOR | {"os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}
FAILS = {"ENOSPC": NEEDS_SPACE, "EMFILE": NEEDS_DESCRIPTOR, "EIO": ON_FILES}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a run in `place`, and what befalls it."""

    place: str
    url: str
    run_id: str = "r1"
    hours: int = 0
    """How late the attempt is made."""
    die_at: str | None = None
    """The point at which it is killed."""
    die_after: int | None = None
    """The number of points after which it is killed."""
    fail_at: str | None = None
    """The point at which a file call fails, with `error`; all later ones as well if `lasting`."""
    error: str = "EIO"
    lasting: bool = False
    tell_points: bool = False
    """Whether to list the points that it comes to in `place/points`."""
    wait_at: str | None = None
    """The point at which it makes `place/waiting`, and waits for `place/go`."""
    plain: bool = False
    """Whether to leave the run as it is: no points, real syncs."""
    mutant: str | None = None
    """The mistake to plant."""


class Ended(msgspec.Struct, frozen=True):
    """What became of an attempt: its exit code, or minus the number of the signal that killed it."""

    code: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def settings(place: Path, url: str, run_id: str) -> dict[str, object]:
    from crdbexport.config import Secret

    return {
        "url": (url,),
        "cluster": "c1",
        "username": "demo",
        "password": Secret("demo"),
        "run_id": run_id,
        "logical_time": "2026-03-05",
        "state_dir": place / "state",
        "concurrency": CONCURRENCY,
        "no_plugins": True,
        "report": str(place / "report.json"),
        "sinks": {
            "lake": {"type": "parquet", "target": str(place / "lake")},
            "lines": {"type": "jsonl", "target": str(place / "lines")},
        },
    }


def serve() -> None:
    _prepare()
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _attempt(job)
        _answer(child)
        _answer(Ended(_ended(child), round(time.monotonic() - started, 3)))


def _answer(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def _ended(child: int) -> int:
    """The exit code of the child; one that hangs is ended with SIGALRM, by itself."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _prepare() -> None:
    """Import what a run imports, so that a fork has it; small batches and short naps make a small run a rich one."""
    import encodings.idna

    import anyio._backends._asyncio
    import h11
    import httpcore._async
    import httpx
    import pyarrow.pandas_compat  # Arrow looks for pandas when it first converts a value.

    import crdbexport
    import crdbexport.attempt
    import crdbexport.builtin
    import crdbexport.runner
    import crdbexport.supervision
    from crdbexport.pipeline.batches import Batcher
    from tests.proof import mutants, points

    assert all((anyio, encodings.idna, h11, httpcore, httpx, pyarrow.pandas_compat, mutants, points))
    pyarrow.pandas_compat._pandas_api.is_data_frame(None)
    crdbexport.attempt.Batcher = functools.partial(Batcher, batch_rows=BATCH_ROWS)
    crdbexport.supervision.POLL_SECONDS = 0.002


def _attempt(job: Job) -> None:
    """Never returns."""
    signal.setitimer(signal.ITIMER_REAL, HANGING_SECONDS)
    code = BUG
    try:
        code = _export(job)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _export(job: Job) -> int:
    import crdbexport
    from crdbexport import ExportConfig
    from tests.proof.mutants import MUTANTS
    from tests.proof.points import Points

    place = Path(job.place)
    said = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 2)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO)
    if job.mutant is not None:
        MUTANTS[job.mutant].plant()
    if not job.plain:
        Points(place, _reached(job, place)).install()
    config = ExportConfig(**settings(place, job.url, job.run_id))
    try:
        return crdbexport.export(config, clock=lambda: NOW + timedelta(hours=job.hours)).exit_code
    except crdbexport.CrdbExportError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


def _reached(job: Job, place: Path) -> Callable[[str, str], None]:
    told = os.open(place / "points", os.O_WRONLY | os.O_CREAT | os.O_APPEND) if job.tell_points else None
    count = 0
    failing = False

    def reached(what: str, point: str) -> None:
        nonlocal count, failing
        count += 1
        if told is not None:
            os.write(told, f"{point}\n".encode())
        if point == job.wait_at:
            _wait(place)
        if point == job.die_at or count == job.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if point == job.fail_at or (failing and what in FAILS[job.error]):
            if not failing:
                print(f"fails now: {point}", file=sys.stderr, flush=True)
            failing = job.lasting
            number = getattr(errno, job.error)
            path = point.removeprefix(f"{what} ").rpartition(" #")[0].split(" -> ")[-1]
            raise OSError(number, os.strerror(number), str(place / path))

    return reached


def _wait(place: Path) -> None:
    (place / "waiting").touch()
    while not (place / "go").exists():
        time.sleep(0.002)


if __name__ == "__main__":
    serve()
