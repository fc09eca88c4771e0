"""The runs that a state directory knows: what became of each, what it still holds, and clearing up after them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import filelock
import msgspec

from crdbexport.errors import ConfigError, shown
from crdbexport.file_names import escaped
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.state import Extraction, RunRecord
from crdbexport.report import RunReport, SinkReport

RunStatus = Literal["running", "interrupted", "failed", "incomplete", "complete"]
# A run that was killed, or failed, before every sink had it.
UNFINISHED = frozenset({"interrupted", "failed"})


class KnownRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run as its state tells it.

    `resumable`: some of the cluster is read, and the same run goes on from there. `deliverable`: all of it is read and
    the records are kept, so that sinks can be fed without the cluster. Sizes are in bytes.
    """

    cluster: str
    run_id: str
    logical_time: datetime
    started_at: datetime
    status: RunStatus
    exit_code: int | None
    resumable: bool
    deliverable: bool
    records: int | None
    dead_letters: int
    sinks: dict[str, str]
    kept_bytes: int
    directory: Path
    settings: dict[str, Any] = {}


def known_runs(root: Path, cluster: str | None = None) -> list[KnownRun]:
    """All runs below the state directory, or those of one cluster, oldest first."""
    runs = (_known(directory) for directory in run_directories(root, cluster))
    found = [run for run in runs if run is not None and cluster in (None, run.cluster)]
    return sorted(found, key=lambda run: (run.cluster, run.started_at, run.run_id))


def find_run(root: Path, run_id: str, cluster: str | None = None) -> KnownRun:
    """The run of this id; raises `ConfigError` where there is none, or one for each of several clusters."""
    found = [run for run in known_runs(root, cluster) if run.run_id == run_id]
    if not found:
        raise ConfigError(f"no run {shown(run_id)} is known in {root}; see `crdbexport runs list`, or give --state-dir")
    if len(found) > 1:
        clusters = ", ".join(shown(run.cluster) for run in found)
        raise ConfigError(f"run {shown(run_id)} is known of several clusters ({clusters}); give --cluster")
    return found[0]


def resumable_run(root: Path, cluster: str, settings: Mapping[str, object]) -> KnownRun | None:
    """The latest unfinished run of the cluster that reads what these settings read, if there is one."""
    wanted = msgspec.to_builtins(settings)
    runs = [run for run in known_runs(root, cluster) if run.status in UNFINISHED and run.settings == wanted]
    return next((run for run in reversed(runs) if run.resumable or run.deliverable), None)


def run_directories(root: Path, cluster: str | None = None) -> list[Path]:
    """The directories of runs, in order of their names."""
    pattern = "*" if cluster is None else f"{escaped(cluster)}.*"
    return sorted(path for path in (root / "runs").glob(pattern) if path.is_dir())


def litter(root: Path) -> Iterator[Path]:
    """What no run needs: spools that were never finished, and directories that no process got to describe."""
    for directory in run_directories(root):
        if held(directory):
            continue
        run = _known(directory)
        if run is None:
            yield directory
        elif not run.deliverable and (directory / "spool").exists():
            yield directory / "spool"


def expired(root: Path, keep: int) -> Iterator[Path]:
    """The directories of finished runs but the latest `keep` of each cluster; their reports go with them."""
    by_cluster: dict[str, list[KnownRun]] = {}
    for run in known_runs(root):
        by_cluster.setdefault(run.cluster, []).append(run)
    for runs in by_cluster.values():
        finished = [run for run in runs if run.status not in UNFINISHED | {"running"} and not run.deliverable]
        yield from (run.directory for run in finished[: max(0, len(finished) - keep)])


def remove(path: Path) -> None:
    """Remove a run's directory, or its spool, unless a process has begun to work there meanwhile."""
    directory = path.parent if path.name == "spool" else path
    if not held(directory):
        shutil.rmtree(path, ignore_errors=True)


def held(directory: Path) -> bool:
    """Whether a process works on the run."""
    if not (directory / "lock").exists():
        return False
    lock = filelock.FileLock(directory / "lock", mode=0o600)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _known(directory: Path) -> KnownRun | None:
    """What the journal tells; None where there is none, or one that was never begun."""
    path = directory / "journal.db"
    if not path.exists() or not path.stat().st_size:
        return None
    running = held(directory)
    journal = Journal(path)
    try:
        record = journal.document("run", RunRecord)
        if record is None:
            return None
        extraction = journal.document("extraction", Extraction)
        report, committed = journal.document("report", RunReport), journal.sinks(SinkReport)
        return _told(directory, record, extraction, report, committed, running=running, answers=journal.has_answers())
    finally:
        journal.close()


def _told(
    directory: Path,
    record: RunRecord,
    extraction: Extraction | None,
    report: RunReport | None,
    committed: Mapping[str, SinkReport],
    *,
    running: bool,
    answers: bool,
) -> KnownRun:
    sinks = {**{sink.name: sink for sink in (report.sinks if report else ())}, **committed}
    streams = extraction.streams if extraction else report.streams if report else None
    return KnownRun(
        cluster=record.cluster,
        run_id=record.run_id,
        logical_time=record.logical_time,
        started_at=record.started_at,
        status="running" if running else report.status if report else "interrupted",
        exit_code=report.exit_code if report and not running else None,
        resumable=answers,
        deliverable=extraction is not None,
        records=sum(each.extracted for each in streams.values()) if streams is not None else None,
        dead_letters=sum(counts.dead_lettered for sink in sinks.values() for counts in sink.streams.values()),
        sinks={name: sink.status for name, sink in sinks.items()},
        kept_bytes=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        directory=directory,
        settings=record.settings,
    )
