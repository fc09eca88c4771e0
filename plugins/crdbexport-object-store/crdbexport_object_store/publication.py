"""Publishing a run into a bucket, where nothing can be renamed, nothing is locked, and any process may die.

    1  read the snapshot's manifest: which run stands, and in which version of the object
    2  put the files, each under a name that no other attempt has
    3  list what other attempts at the snapshot have left
    4  write the manifest, on condition that it is still the one that was read
    5  remove what the manifest before named, and what was listed

Step 4 is the commit, and takes the place of the earlier run at once. Of two that publish the same snapshot it stops
the second. Whatever was listed in step 3 belongs to attempts that began before it, which can commit no more: so it
may be removed, whoever is still at work on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crdbexport import ConfigError, CrdbExportError, Outcome, Run, SinkError, SinkRefusedError
from crdbexport.errors import shown
from crdbexport.sinks.manifest import Manifest, ManifestFile, decode_manifest, encode_manifest, manifest_of
from crdbexport.sinks.publishing import refuse_to_supersede
from crdbexport_object_store.attempt import MANIFESTS, Attempt
from crdbexport_object_store.store import Found, Listed, Store
from crdbexport_object_store.troubles import ChangedMeanwhileError

COMMIT_TRIES = 3


@dataclass(frozen=True)
class FinishedFile:
    """The file of a stream, closed, on this machine."""

    path: Path
    rows: int
    size_bytes: int
    sha256: str


class Publication:
    """One attempt at one run. `where` in messages is the bucket with its prefix."""

    def __init__(self, store: Store, run: Run, *, sink: str, suffix: str) -> None:
        self._store, self._run, self._sink = store, run, sink
        self._attempt = Attempt(run, suffix)
        self._in_doubt = False
        """Whether the manifest may still appear although nobody said so: then its files must stay."""

    def check(self) -> None:
        """Raise unless the run can be published here: try all that it takes, and look what is there."""
        self._store.put(self._attempt.probe, b"probe")
        try:
            self._refuse_overwriting_store()
        finally:
            self._store.delete(self._attempt.probe)
        for path in {*(each.path for each in self._store.listed(MANIFESTS, limit=1)), self._attempt.manifest}:
            if (found := self._store.get(path)) is not None:
                self._refuse_other_format(self._decoded(path, found))

    def commit(self, outcome: Outcome, finished: Mapping[str, FinishedFile]) -> Manifest:
        """Publish the files; for a run that is already published, nothing new.

        Raises SnapshotKeptError when a better run of the same snapshot stands, SinkRefusedError when this very run
        stands with other content, SinkError when the store fails or another process has published meanwhile.
        """
        manifest = manifest_of(self._run, outcome, self._sink, self._files(finished))
        since = self._store.get(self._attempt.manifest)
        if since is None:
            return self._publish(manifest, finished, None)
        standing = self._decoded(self._attempt.manifest, since)
        self._refuse_other_format(standing)
        if standing.run_id == manifest.run_id:
            return self._repeated(standing, manifest, since)
        refuse_to_supersede(standing, manifest, self._store.where)
        return self._publish(manifest, finished, since, [file.path for file in standing.files])

    def _publish(
        self,
        manifest: Manifest,
        finished: Mapping[str, FinishedFile],
        since: Found | None,
        superseded: Sequence[str] = (),
    ) -> Manifest:
        try:
            for file in manifest.files:
                self._store.put_file(file.path, finished[file.stream].path)
            rivals = [each.path for each in self._rivals()]
            self._write_manifest(encode_manifest(manifest), since)
        except BaseException:
            if not self._in_doubt:
                self._store.delete_later_if_not_now([file.path for file in manifest.files])
            raise
        self._store.delete_later_if_not_now(sorted({*superseded, *rivals}))
        return manifest

    def _refuse_overwriting_store(self) -> None:
        try:
            self._store.put_if_unchanged(self._attempt.probe, b"probe", None)
        except ChangedMeanwhileError:
            return
        raise ConfigError(
            f"{self._store.where}: the store overwrites what it was told to create (If-None-Match: *), so that two "
            "runs could undo each other; update it, or name another"
        )

    def _files(self, finished: Mapping[str, FinishedFile]) -> tuple[ManifestFile, ...]:
        return tuple(
            ManifestFile(self._attempt.file(stream), stream, file.rows, file.size_bytes, file.sha256)
            for stream, file in finished.items()
        )

    def _repeated(self, standing: Manifest, manifest: Manifest, found: Found) -> Manifest:
        if _content(standing) != _content(manifest):
            raise SinkRefusedError(
                f"{self._store.where}: run {shown(standing.run_id)} is published already, with other content than was "
                "made now; give another --run-id"
            )
        # What is older than the manifest was there before the commit, which has stopped all who were at work then.
        named = {file.path for file in standing.files}
        older = (each.path for each in self._rivals() if each.modified < found.modified)
        self._store.delete_later_if_not_now([path for path in older if path not in named])
        return standing

    def _rivals(self) -> list[Listed]:
        """The files of other attempts at this snapshot: superseded, dead, or still at work."""
        listed = (each for directory in self._attempt.directories for each in self._store.listed(directory))
        return [each for each in listed if self._attempt.is_rival(each.path)]

    def _write_manifest(self, data: bytes, since: Found | None) -> None:
        """The commit. Repeating it is safe: it happens once at most, and is known by its content."""
        failure: CrdbExportError | None = None
        for _ in range(COMMIT_TRIES):
            before, self._in_doubt = self._in_doubt, True
            try:
                self._store.put_if_unchanged(self._attempt.manifest, data, since)
                return
            except (SinkRefusedError, ConfigError):
                self._in_doubt = before
                raise
            except ChangedMeanwhileError as error:
                self._in_doubt = before
                failure = error
            except SinkError as error:
                failure = error
            if self._stands(data, since):
                return
        assert failure is not None  # noqa: S101 (or the loop would have returned)
        raise failure

    def _stands(self, data: bytes, since: Found | None) -> bool:
        """Whether the manifest is there although an error came back; raises where it is another process's."""
        now = self._store.get(self._attempt.manifest)
        if now is not None and now.data == data:
            return True
        if (now and now.version) != (since and since.version):
            self._in_doubt = False  # What was sent insists on a version that is gone.
            raise SinkError(
                f"{self._store.where}: another process has published cluster {shown(self._run.cluster)} at "
                f"{self._run.logical_time.isoformat()} meanwhile; run the same command again"
            )
        return False

    def _decoded(self, path: str, found: Found) -> Manifest:
        try:
            return decode_manifest(found.data)
        except ConfigError as error:
            raise ConfigError(f"{self._store.where}/{path}: {error}") from error

    def _refuse_other_format(self, manifest: Manifest) -> None:
        if manifest.sink != self._sink:
            raise ConfigError(
                f"{self._store.where}: holds runs in the format {manifest.sink}; name another prefix for {self._sink}, "
                "for readers expect one format"
            )


def _content(manifest: Manifest) -> list[tuple[str, int, str]]:
    return sorted((file.stream, file.rows, file.sha256) for file in manifest.files)
