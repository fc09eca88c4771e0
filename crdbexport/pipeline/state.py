"""What a run keeps on disk: who it is, what it read, its spool, its report. One process at a time."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import filelock
import msgspec

from crdbexport.disk import DISK_TROUBLE, storage_error
from crdbexport.errors import ConfigError, RunHeldError, shown
from crdbexport.file_names import escaped, file_stem
from crdbexport.pipeline.spool import SpooledBatch, private_file
from crdbexport.records import Gap
from crdbexport.report import ObjectCounts, RequestCounts, RunReport, Shrink, StreamCounts

FORMAT_VERSION = 1
T = TypeVar("T")


class RunRecord(msgspec.Struct, frozen=True):
    """The run as it was begun. `settings` decide what is read; they cannot change under one run id."""

    cluster: str
    run_id: str
    logical_time: datetime
    started_at: datetime
    settings: dict[str, Any]
    format_version: int = FORMAT_VERSION


class Extraction(msgspec.Struct, frozen=True):
    """All that is known once the cluster is read; with the spool it is enough to deliver without the cluster."""

    extracted_at: datetime
    dialect: str | None
    streams: dict[str, StreamCounts]
    requests: RequestCounts
    objects: ObjectCounts
    gaps: tuple[Gap, ...]
    batches: tuple[SpooledBatch, ...]
    shrunk: tuple[Shrink, ...] = ()
    format_version: int = FORMAT_VERSION


class RunState:
    """The directory of one run, held by this process until `close`."""

    def __init__(self, root: Path, cluster: str, run_id: str) -> None:
        self.root = root
        self.directory = root / "runs" / file_stem(cluster, run_id)
        self.spool_directory = self.directory / "spool"
        self._run_id = run_id
        self._lock = filelock.FileLock(self.directory / "lock", mode=0o600)
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            # `parents=True` would leave the upper ones to the umask.
            for directory in (root, root / "runs", self.directory):
                directory.mkdir(exist_ok=True, mode=0o700)
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise RunHeldError(
                f"run {shown(run_id)} of cluster {shown(cluster)} is held by another process; wait for it, or give "
                "another --run-id"
            ) from error
        except OSError as error:
            if error.errno in DISK_TROUBLE:
                raise storage_error(self.directory, error) from error
            raise ConfigError(
                f"--state-dir {root}: cannot be written ({error.strerror or error}); choose another directory"
            ) from error

    def begin(self, record: RunRecord) -> RunRecord:
        """The record of this run: the one kept from an earlier attempt, or the given one, kept from now on.

        Raises `ConfigError` when the earlier attempt ran with other settings.
        """
        known = self._load("run.json", RunRecord)
        if known is None:
            self._save("run.json", record)
            return record
        changed = sorted(
            name for name in record.settings if known.settings.get(name) != msgspec.to_builtins(record.settings[name])
        )
        if changed and (self.extraction() is not None or self._has_committed()):
            raise ConfigError(
                f"run {shown(self._run_id)} was read with another {' and another '.join(changed)}; give the same "
                "options as then, or another --run-id"
            )
        if changed:
            self._save("run.json", record)
            return record
        return known

    def extraction(self) -> Extraction | None:
        """What an earlier attempt read to its end, if one did."""
        return self._load("extraction.json", Extraction)

    def keep_extraction(self, extraction: Extraction) -> None:
        self._save("extraction.json", extraction)

    def drop_extraction(self) -> None:
        """Forget what was read: it is delivered, or was not read to its end."""
        (self.directory / "extraction.json").unlink(missing_ok=True)
        shutil.rmtree(self.spool_directory, ignore_errors=True)

    def report(self) -> RunReport | None:
        """The report of the last attempt."""
        return self._load("report.json", RunReport)

    def _has_committed(self) -> bool:
        report = self.report()
        return report is not None and any(sink.status == "committed" for sink in report.sinks)

    def keep_report(self, report: RunReport) -> None:
        self._save("report.json", report)

    def dead_letters(self, sink: str) -> Path:
        return self.directory / "dead_letters" / f"{escaped(sink)}.jsonl"

    def close(self) -> None:
        self._lock.release()

    def _load(self, name: str, shape: type[T]) -> T | None:
        path = self.directory / name
        try:
            document = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            value = msgspec.json.decode(document, type=shape)
            if getattr(value, "format_version", FORMAT_VERSION) != FORMAT_VERSION:
                raise msgspec.ValidationError("another format version")
            return value
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{path}: damaged, or of another version of crdbexport ({error}); give another --run-id, or delete "
                f"{self.directory}"
            ) from error

    def _save(self, name: str, value: Any) -> None:
        path = self.directory / name
        temporary = path.with_suffix(".tmp")
        try:
            with private_file(temporary) as file:
                file.write(msgspec.json.encode(value))
            temporary.replace(path)
        except OSError as error:
            raise storage_error(path, error) from error
