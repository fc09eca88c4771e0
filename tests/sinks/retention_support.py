"""Lakes of several days for the tests of retention; run as a script, the processes that those tests kill."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from crdbexport.sinks.lake import Lake
from crdbexport.sinks.retention import expire, sweep
from tests.sinks.lake_support import DAY, SINKS, TWO_STREAMS, a_run, deliver, everything, killed_at
from tests.sinks.lake_support import script as script_of_lakes


def publish_day(lake: Path, day: int, *, kind: str = "jsonl", cluster: str = "prod", run_id: str | None = None) -> None:
    run = a_run(run_id or f"r{day}", cluster=cluster, day=DAY + timedelta(days=day), streams=TWO_STREAMS)
    deliver(SINKS[kind](lake), run, everything(run, day + 1))


def four_days(lake: Path, kind: str = "jsonl") -> None:
    for day in range(4):
        publish_day(lake, day, kind=kind)


def unfinish(lake: Path, stem: str) -> None:
    """Turn a published run into one whose process died right before the manifest appeared."""
    Lake(lake).staging(stem).mkdir()
    Lake(lake).manifest(stem).rename(Lake(lake).prepared(stem))


def orphan(lake: Path, stem: str) -> None:
    Lake(lake).manifest(stem).unlink()


def expire_all_but_one(lake: Path) -> None:
    expire(Lake(lake), 1)


def sweep_up(lake: Path) -> None:
    sweep(Lake(lake))


def littered(lake: Path, kind: str) -> None:
    four_days(lake, kind)
    unfinish(lake, "prod.r1")
    orphan(lake, "prod.r2")


def kill_everywhere(base: Path, kind: str, task: str) -> None:
    """Kill a task at each of its file operations; one lake is left for each."""
    prepare, work = {"expire": (four_days, expire_all_but_one), "sweep": (littered, sweep_up)}[task]
    os.fsync = lambda descriptor: None  # A killed process loses nothing that it had not synced.
    with tempfile.TemporaryDirectory() as template:
        prepare(Path(template), kind)
        for number in range(1, 1000):
            lake = shutil.copytree(template, base / f"{number:03}")
            if killed_at(number, lambda lake=lake: work(lake)):
                return


def script(*arguments: str) -> dict[str, Any]:
    """What `subprocess` needs to run this file with the same packages."""
    return {**script_of_lakes(), "args": [sys.executable, __file__, *arguments]}


if __name__ == "__main__":
    kill_everywhere(Path(sys.argv[1]), *sys.argv[2:])
