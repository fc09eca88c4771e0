"""The runs that a state directory knows: what became of each, what it still holds, and clearing up after them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import filelock
import msgspec

from crdbexport.errors import ConfigError, CrdbExportError, OutputClosedError, shown
from crdbexport.file_names import escaped
from crdbexport.pipeline.answers import has_answers
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.state import ANSWERS, JOURNAL, REFUSED, RUNS, SPOOL, Extraction, RunRecord, as_written
from crdbexport.report import RunReport, SinkReport

RunStatus = Literal["running", "interrupted", "failed", "incomplete", "complete"]
# Some sink has the run.
FINISHED = frozenset({"incomplete", "complete"})

log = logging.getLogger(__name__)


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

    @property
    def owes(self) -> bool:
        """Whether a sink still lacks records of the run, or has refused some."""
        return bool(self.dead_letters) or set(self.sinks.values()) != {"committed"}


def known_runs(root: Path, cluster: str | None = None) -> list[KnownRun]:
    """All runs below the state directory, or those of one cluster, oldest first; one that cannot be read is logged."""
    runs = (_readable(directory) for directory in run_directories(root, cluster))
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
    """The latest run of the cluster that reads what these settings read, if it is unfinished and not at work."""
    wanted = as_written(settings)
    runs = [run for run in known_runs(root, cluster) if run.settings == wanted and run.status != "running"]
    telling = [run for run in runs if run.status in FINISHED or run.resumable or run.deliverable]
    latest = telling[-1] if telling else None
    # Whoever closed the output of a run had seen enough of it.
    over = latest is None or latest.status in FINISHED or latest.exit_code == OutputClosedError.exit_code
    return None if over else latest


def run_directories(root: Path, cluster: str | None = None) -> list[Path]:
    """The directories of runs, in order of their names."""
    pattern = "*" if cluster is None else f"{escaped(cluster)}.*"
    return sorted(path for path in (root / RUNS).glob(pattern) if path.is_dir())


def litter(root: Path) -> Iterator[Path]:
    """What no run needs: spools that were never finished, and directories that no process got to describe."""
    for directory in run_directories(root):
        if held(directory):
            continue
        try:
            run = _known(directory)
        except CrdbExportError as error:
            log.warning("%s; it is left alone", error, extra={"event": "run_unreadable"})
            continue
        if run is None:
            yield directory
            continue
        needless = (REFUSED,) if run.deliverable else (SPOOL, REFUSED)
        yield from (directory / name for name in needless if (directory / name).exists())


def expired(root: Path, keep: int) -> Iterator[Path]:
    """The directories of runs that came before the latest `keep` finished ones of their cluster.

    Runs at work stay, and those whose records a sink may still want.
    """
    by_cluster: dict[str, list[KnownRun]] = {}
    for run in known_runs(root):
        by_cluster.setdefault(run.cluster, []).append(run)
    for runs in by_cluster.values():
        finished = [index for index, run in enumerate(runs) if run.status in FINISHED]
        before = runs[: finished[-keep]] if len(finished) >= keep else []
        yield from (run.directory for run in before if run.status != "running" and not run.deliverable)


def remove(path: Path) -> bool:
    """Remove a run's directory, or something in it; answers false where a process has begun to work there meanwhile."""
    directory = path if path.parent.name == RUNS else path.parent
    with _holding(directory) as free:
        if free:
            shutil.rmtree(path, ignore_errors=True)
    return free


def held(directory: Path) -> bool:
    """Whether a process works on the run."""
    if not (directory / "lock").exists():
        return False
    with _holding(directory) as free:
        return not free


@contextmanager
def _holding(directory: Path) -> Iterator[bool]:
    """Whether no process works on the run; as long as the context lasts, none begins to."""
    lock = filelock.FileLock(directory / "lock", mode=0o600)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _readable(directory: Path) -> KnownRun | None:
    try:
        return _known(directory)
    except CrdbExportError as error:
        log.warning("%s", error, extra={"event": "run_unreadable"})
        return None


def _known(directory: Path) -> KnownRun | None:
    """What the journal tells; None where there is none, or one that was never begun."""
    path = directory / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return None
    running = held(directory)
    journal = Journal(path, make=False)
    try:
        record = journal.document("run", RunRecord) if journal.made else None
        if record is None:
            return None
        extraction = journal.document("extraction", Extraction)
        answers = has_answers(directory / ANSWERS)
        report, committed = journal.document("report", RunReport), journal.sinks(SinkReport)
        return _told(directory, record, extraction, report, committed, running=running, answers=answers)
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
    sinks = {sink.name: sink for each in (extraction, report) if each for sink in each.sinks} | dict(committed)
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
        kept_bytes=sum(map(_size, directory.rglob("*"))),
        directory=directory,
        settings=record.settings,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # Gone meanwhile, for a run is at work.
        return 0
