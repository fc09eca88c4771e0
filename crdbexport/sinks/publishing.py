"""Publishing a run into a directory: staged, then made visible at once, surviving a crash at any point.

    open     hold the run; finish what crashed runs left
    commit   sync staged files -> prepared manifest -> rename each into place -> manifest -> remove superseded
    abort    remove the staging directory

The manifest's appearance is the commit; `recovery.py` holds all that follows the prepared manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from pathlib import Path

from filelock import FileLock

from crdbexport.disk import make_directories, sync
from crdbexport.errors import RunHeldError, SinkRefusedError, SnapshotKeptError, shown
from crdbexport.file_names import file_stem
from crdbexport.sinks.base import Outcome, Run
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest, ManifestFile, manifest_of, read_manifest, write_manifest
from crdbexport.sinks.recovery import (
    clear_staging,
    finish_interrupted,
    finish_prepared,
    logged_for_later,
    roll_forward,
    same_snapshot,
    withdraw,
)


class Publication:
    """One run on its way into a lake. Raises OSError where the disk is full or fails."""

    def __init__(self, lake: Lake, run: Run, *, sink: str, suffix: str) -> None:
        self._lake = lake
        self._run = run
        self._sink = sink
        self._suffix = suffix
        self._stem = file_stem(run.cluster, run.run_id)
        self._lock: FileLock | None = None
        self.published: Manifest | None = None
        """The manifest, once the run is committed; after `open`, that of an earlier process."""

    def open(self) -> None:
        """Hold the run, and make its staging directory unless the run is already published."""
        make_directories(self._lake.staging_root)
        with self._lake.locked():
            finish_interrupted(self._lake)
            self._lock = self._lake.hold(self._stem)
            if self._lock is None:
                raise RunHeldError(
                    f"{self._lake.root}: another process is publishing run {shown(self._run.run_id)} of "
                    f"cluster {shown(self._run.cluster)}; run the same command again when it has finished"
                )
            if self._lake.manifest(self._stem).exists():
                self.published = self._own(read_manifest(self._lake.manifest(self._stem)))
            else:
                self._lake.staging(self._stem).mkdir()

    def _own(self, manifest: Manifest) -> Manifest:
        run = self._run
        if (manifest.cluster, manifest.run_id) != (run.cluster, run.run_id):
            raise SinkRefusedError(
                f"{self._lake.root}: run {shown(manifest.run_id)} of cluster {shown(manifest.cluster)} has the files "
                f"that run {shown(run.run_id)} of cluster {shown(run.cluster)} would have, for this file system does "
                "not tell upper from lower case; give another --run-id, or another directory"
            )
        return manifest

    def staged(self, stream: str) -> Path:
        """Where the file of a stream is to be written."""
        return self._lake.staged(self._stem, stream)

    def staged_bytes(self) -> int:
        """How much has been written so far."""
        with suppress(OSError):
            return sum(path.stat().st_size for path in self._lake.staging(self._stem).iterdir())
        return 0

    def commit(self, outcome: Outcome, rows: Mapping[str, int]) -> Manifest:
        """Publish the staged files; for a run that is already published, nothing new.

        Raises SnapshotKeptError when a better one of the same snapshot stands: complete, or read later.
        """
        try:
            if self.published is None:
                manifest = self._sealed(outcome, rows)
                with self._lake.locked():
                    finish_prepared(self._lake)
                    self._refuse_to_supersede_better(manifest)
                    self._publish(manifest)
                self.published = manifest
            return self.published
        finally:
            with logged_for_later("letting go of the run"):
                self.abort()

    def abort(self) -> None:
        """Remove what is staged and let go of the run. What is published stays; may be called at any time."""
        if self._lock is None:
            return
        try:
            with self._lake.locked():
                clear_staging(self._lake, self._stem)
                self._lake.let_go(self._lock)
        finally:
            self._lock.release()
            self._lock = None

    def _sealed(self, outcome: Outcome, rows: Mapping[str, int]) -> Manifest:
        files = tuple(self._seal(stream, rows[stream]) for stream in self._run.streams)
        sync(self._lake.staging(self._stem))
        sync(self._lake.staging_root)
        return manifest_of(self._run, outcome, self._sink, files)

    def _seal(self, stream: str, rows: int) -> ManifestFile:
        staged = self.staged(stream)
        sync(staged)
        with staged.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        day = self._run.logical_time.astimezone(UTC).date().isoformat()
        path = f"{stream}/date={day}/{self._stem}{self._suffix}"
        return ManifestFile(path, stream, rows, staged.stat().st_size, digest)

    def _refuse_to_supersede_better(self, manifest: Manifest) -> None:
        for kept in same_snapshot(self._lake, manifest):
            refuse_to_supersede(kept, manifest, str(self._lake.root))

    def _publish(self, manifest: Manifest) -> None:
        prepared = self._lake.prepared(self._stem)
        try:
            write_manifest(manifest, prepared, via=prepared.with_suffix(".new"))
            roll_forward(self._lake, self._stem)
        except BaseException:
            with logged_for_later("taking back what was renamed"):
                withdraw(self._lake, self._stem, manifest)
            raise


def refuse_to_supersede(kept: Manifest, manifest: Manifest, where: str) -> None:
    """Raise SnapshotKeptError when `kept` is better than `manifest` of the same snapshot: complete, or read later."""
    if kept.complete and not manifest.complete:
        better, why = "complete", "this run is incomplete"
    elif kept.complete == manifest.complete and kept.extracted_at > manifest.extracted_at:
        better, why = "newer", "this run was read earlier"
    else:
        return
    raise SnapshotKeptError(
        f"{where}: keeps the {better} snapshot of run {shown(kept.run_id)} for cluster "
        f"{shown(kept.cluster)} at {kept.logical_time.isoformat()}; {why}, and was not published"
    )
