"""What a run keeps on disk: its journal, its spool, its dead letters. One process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import msgspec

from crdbexport.disk import DISK_TROUBLE, PRIVATE_DIRECTORY, make_directories, private_directory, storage_error
from crdbexport.errors import ConfigError, RunHeldError, StorageError, shown
from crdbexport.file_names import escaped, file_stem
from crdbexport.pipeline.answers import Answers
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.spool import SpooledBatch
from crdbexport.records import Gap
from crdbexport.report import ObjectCounts, RequestCounts, RunReport, Shrink, SinkReport, StreamCounts

# Who lists the runs holds each for a moment.
PATIENCE_SECONDS = 0.5
# What the state directory holds, and what the directory of a run does.
RUNS, SPOOL, REFUSED = "runs", "spool", "refused"
JOURNAL, ANSWERS = "journal.db", "answers.log"


class RunRecord(msgspec.Struct, frozen=True):
    """The run as it was begun. `settings` decide what is read; they cannot change once something is."""

    cluster: str
    run_id: str
    logical_time: datetime
    started_at: datetime
    settings: dict[str, Any]


class Extraction(msgspec.Struct, frozen=True):
    """All that is known once the cluster is read; with the spool it is enough to deliver without the cluster.

    `sinks` are those that were to have it, as they stood then.
    """

    extracted_at: datetime
    dialect: str | None
    streams: dict[str, StreamCounts]
    requests: RequestCounts
    objects: ObjectCounts
    gaps: tuple[Gap, ...]
    batches: tuple[SpooledBatch, ...]
    shrunk: tuple[Shrink, ...] = ()
    sinks: tuple[SinkReport, ...] = ()


class RunState:
    """The directory of one run, held by this process until `close`."""

    close: Callable[[], None]

    def __init__(self, root: Path, cluster: str, run_id: str) -> None:
        self.root = root
        self.directory = root / RUNS / file_stem(cluster, run_id)
        self.spool_directory = self.directory / SPOOL
        self.refused_directory = self.directory / REFUSED
        self._run_id = run_id
        self._lock = filelock.FileLock(self.directory / "lock", mode=0o600)
        try:
            make_directories(root, mode=PRIVATE_DIRECTORY)
            for directory in (root / RUNS, self.directory):
                private_directory(directory)
            self._lock.acquire(timeout=PATIENCE_SECONDS)
        except filelock.Timeout as error:
            raise RunHeldError(
                f"run {shown(run_id)} of cluster {shown(cluster)} is held by another process; wait for it, or give "
                "another --run-id"
            ) from error
        except OSError as error:
            if error.errno in DISK_TROUBLE:
                raise storage_error(self.directory, error) from error
            raise ConfigError(
                f"--state-dir {root}: cannot be written ({error.filename or root}: {error.strerror or error}); choose "
                "another directory"
            ) from error
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self.journal = opened.enter_context(closing(Journal(self.directory / JOURNAL)))
            self.answers = opened.enter_context(closing(Answers(self.directory / ANSWERS)))
            self._forget_answers_of_the_past()
            self.close = opened.pop_all().close

    def begin(self, record: RunRecord) -> RunRecord:
        """The record of this run, kept from now on: the given one, or what an earlier attempt has fixed.

        The logical time is fixed by the first attempt, the time of reading by the first answer. Raises `ConfigError`
        when that attempt read with other settings.
        """
        record = msgspec.structs.replace(record, settings=as_written(record.settings))
        known = self.journal.document("run", RunRecord)
        if known is None:
            self.journal.keep_document("run", record)
            return record
        if (known.cluster, known.run_id) != (record.cluster, record.run_id):
            raise ConfigError(
                f"{self.directory}: is that of run {shown(known.run_id)} of cluster {shown(known.cluster)}, for this "
                "file system does not tell upper from lower case; give another --run-id"
            )
        changed = sorted(
            name
            for name in known.settings.keys() | record.settings.keys()
            if known.settings.get(name) != record.settings.get(name)
        )
        if self.begun_to_read():
            if changed:
                raise ConfigError(
                    f"run {shown(self._run_id)} was read with another {' and another '.join(changed)}; give the same "
                    "options as then, or another --run-id"
                )
            return known
        moment = record.logical_time if changed else known.logical_time
        record = msgspec.structs.replace(record, logical_time=moment)
        self.journal.keep_document("run", record)
        return record

    def begun_to_read(self) -> bool:
        """Whether the run's records are decided, be it in part."""
        return bool(self.answers) or self.extraction() is not None or bool(self.committed())

    def extraction(self) -> Extraction | None:
        """What an earlier attempt read to its end, if one did."""
        return self.journal.document("extraction", Extraction)

    def keep_extraction(self, extraction: Extraction) -> None:
        """The spool holds everything from now on, in the place of the answers."""
        self.journal.keep_document("extraction", extraction)
        self._forget_answers_of_the_past()

    def _forget_answers_of_the_past(self) -> None:
        """Once everything is read, they count for nothing; a process may have died before it could drop them."""
        if self.answers and self.extraction() is not None:
            # What was decided stands, whether there is room to tidy up or not.
            with suppress(StorageError):
                self.answers.forget()

    def drop_spool(self) -> None:
        """Remove what was spooled; it can be built anew, or is delivered."""
        shutil.rmtree(self.spool_directory, ignore_errors=True)

    def committed(self) -> dict[str, SinkReport]:
        """The sinks that have committed the run, by name."""
        report = self.report()
        told = {sink.name: sink for sink in (report.sinks if report else ()) if sink.status == "committed"}
        return {**told, **self.journal.sinks(SinkReport)}

    def keep_committed(self, sink: SinkReport) -> None:
        self.journal.keep_sink(sink.name, sink)

    def requests(self) -> RequestCounts | None:
        """The requests of attempts that did not come to their end."""
        return self.journal.document("requests", RequestCounts)

    def keep_requests(self, requests: RequestCounts) -> None:
        self.journal.keep_document("requests", requests)

    def report(self) -> RunReport | None:
        """The report of the last attempt."""
        return self.journal.document("report", RunReport)

    def keep_report(self, report: RunReport, *, delivered: bool = False) -> None:
        """Keep the report; of a run that is delivered, in the place of what was read."""
        self._forget_answers_of_the_past()
        self.journal.keep_document("report", report, instead_of="extraction" if delivered else None)
        if delivered:
            self.drop_spool()

    def dead_letters(self, sink: str) -> Path:
        return self.directory / "dead_letters" / f"{escaped(sink)}.jsonl"


def as_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from the journal, which knows lists but no tuples."""
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings, enc_hook=str))
    return written
