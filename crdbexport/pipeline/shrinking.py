"""The guard against a snapshot that shrinks: an account that lost privileges gets fewer rows, and no error.

What the last accepted snapshot of a cluster held is kept in `clusters/<cluster>.json` in the state directory. Runs that
read another part of the cluster, or transform it otherwise, are not comparable: each selection has counts of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import filelock
import msgspec

from crdbexport.disk import cause_of, private_directory, private_file, sync, sync_all
from crdbexport.file_names import escaped
from crdbexport.pipeline.state import Extraction, RunRecord
from crdbexport.report import Moment, Shrink, StreamCounts

FORMAT_VERSION = 1
LOCK_TIMEOUT_SECONDS = 10.0
COMPARABLE = ("database", "exclude_database", "transforms")
"""The settings that must be equal before counts are compared. A stream's count does not depend on the other streams."""

log = logging.getLogger(__name__)


class Held(msgspec.Struct, frozen=True):
    """What a snapshot held of one stream, as published; `extracted_at` orders the runs."""

    records: int
    run_id: str
    logical_time: Moment
    extracted_at: Moment


class Kept(msgspec.Struct, frozen=True):
    """The file of one cluster: the last accepted counts by selection, then by stream."""

    cluster: str
    selections: dict[str, dict[str, Held]]
    format_version: int = FORMAT_VERSION


def shrunken(before: Mapping[str, Held], streams: Mapping[str, StreamCounts]) -> tuple[Shrink, ...]:
    """The streams that hold less than half of what they held before."""
    return tuple(
        Shrink(name, held.records, _records(counts), held.run_id)
        for name, counts in streams.items()
        if (held := before.get(name)) and 2 * _records(counts) < held.records
    )


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The same for runs whose counts can be compared, whatever the order of their patterns."""
    database, exclude, transforms = (settings.get(name, ()) for name in COMPARABLE)
    document = msgspec.json.encode([sorted(database), sorted(exclude), transforms], order="sorted")
    return blake2b(document, digest_size=16).hexdigest()


class Baseline:
    """What a run of this cluster and selection is measured by. Trouble with its file is warned about, never raised."""

    def __init__(self, root: Path, cluster: str, settings: Mapping[str, Any]) -> None:
        self._path = root / "clusters" / f"{escaped(cluster)}.json"
        self._cluster, self._selection = cluster, fingerprint(settings)

    def shrunken(self, streams: Mapping[str, StreamCounts]) -> tuple[Shrink, ...]:
        """The streams that shrank since the last accepted snapshot; none where nothing is known of one."""
        try:
            return shrunken(self._load().selections.get(self._selection, {}), streams)
        except OSError as error:
            cause = cause_of(error)
        except (msgspec.MsgspecError, UnicodeError) as error:
            cause = f"damaged, or of another version of crdbexport ({error})"
        log.warning(
            "%s: %s; whether this run shrank is not known", self._path, cause, extra={"event": "baseline_unreadable"}
        )
        return ()

    def accept(self, record: RunRecord, extraction: Extraction, now: datetime) -> None:
        """Measure the next runs by this one, durably, unless a later reading was accepted meanwhile."""
        try:
            private_directory(self._path.parent)
            with filelock.FileLock(self._path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_SECONDS, mode=0o600):
                self._store(self._accepted(record, extraction, now))
        except OSError as error:
            log.warning(
                "%s: %s; later runs are not compared with this one",
                self._path,
                cause_of(error),
                extra={"event": "baseline_not_kept"},
            )

    def _accepted(self, record: RunRecord, extraction: Extraction, now: datetime) -> Kept:
        try:
            selections = self._load().selections
        except (msgspec.MsgspecError, UnicodeError):
            selections = {}
        before = selections.get(self._selection, {})
        # A time to come is a clock that was wrong then; it must not keep later runs out for ever.
        later = {name for name, held in before.items() if extraction.extracted_at < held.extracted_at <= now}
        read = {
            name: Held(_records(counts), record.run_id, record.logical_time, extraction.extracted_at)
            for name, counts in extraction.streams.items()
            if name not in later
        }
        return Kept(self._cluster, {**selections, self._selection: {**before, **read}})

    def _load(self) -> Kept:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept(self._cluster, {})
        if kept.format_version != FORMAT_VERSION:
            raise msgspec.ValidationError("another format version")
        return kept

    def _store(self, kept: Kept) -> None:
        temporary = self._path.with_suffix(".tmp")
        with private_file(temporary) as file:
            file.write(msgspec.json.encode(kept))
        sync(temporary)
        temporary.replace(self._path)
        sync_all((self._path.parent, self._path.parent.parent))


def _records(counts: StreamCounts) -> int:
    return counts.extracted - counts.filtered
