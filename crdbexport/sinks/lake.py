"""A directory that file sinks publish to: where things stand in it, who may change it, and if it is usable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from crdbexport.disk import DISK_TROUBLE, cause_of, make_directories, storage_error, write_durably
from crdbexport.errors import ConfigError, RunHeldError
from crdbexport.file_names import escaped
from crdbexport.sinks.base import Run
from crdbexport.sinks.manifest import Manifest, ManifestFile, read_manifest

LOCK_TIMEOUT_SECONDS = 60.0
_LOCK_SUFFIX = ".lock"
_ASIDE = "superseded."


@dataclass(frozen=True)
class Lake:
    """The paths below `root`. No stem starts with `_`, so names that do are free for this class."""

    root: Path

    @property
    def staging_root(self) -> Path:
        return self.root / "_staging"

    @property
    def manifests(self) -> Path:
        return self.root / "_manifests"

    def staging(self, stem: str) -> Path:
        return self.staging_root / stem

    def prepared(self, stem: str) -> Path:
        return self.staging(stem) / "prepared.json"

    def manifest(self, stem: str) -> Path:
        return self.manifests / f"{stem}.json"

    def staged(self, stem: str, stream: str) -> Path:
        # Without a suffix, so that `**/*.parquet` over the whole directory does not find it.
        return self.staging(stem) / stream

    def place(self, file: ManifestFile) -> Path:
        return self.root / file.path

    def aside(self, stem: str, other: str) -> Path:
        """Where run `stem` puts the manifest of run `other`, whose files are to be removed."""
        return self.staging(stem) / f"{_ASIDE}{other}.json"

    def set_aside(self, stem: str) -> dict[str, Path]:
        """The manifests that run `stem` has put aside, by the stems of their runs."""
        return {
            path.name.removeprefix(_ASIDE).removesuffix(".json"): path
            for path in sorted(self.staging(stem).glob(f"{_ASIDE}*.json"))
        }

    def must_exist(self) -> None:
        """Raise ConfigError unless a sink has published here, or has begun to."""
        if not self.manifests.is_dir() and not self.staging_root.is_dir():
            raise ConfigError(
                f"{self.root}: nothing was published here (there is no {self.manifests.name}); name the directory "
                "that a parquet or jsonl sink publishes to"
            )

    def unfinished(self) -> list[str]:
        """The stems of all runs that left something in staging, running ones included."""
        names = (path.name for path in self.staging_root.iterdir()) if self.staging_root.is_dir() else ()
        return sorted({name.removesuffix(_LOCK_SUFFIX) for name in names if not name.startswith("_")})

    def manifests_of(self, cluster: str | None) -> Iterator[Manifest]:
        """The manifests of all committed runs of the cluster, or of all clusters, sorted by run."""
        for path in self.manifest_paths(cluster):
            yield read_manifest(path)

    def manifest_paths(self, cluster: str | None = None) -> list[Path]:
        """Where the manifests of the cluster, or of all clusters, stand; sorted."""
        return sorted(self.manifests.glob("*.json" if cluster is None else f"{escaped(cluster)}.*.json"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that publishes to this directory, for a moment."""
        lock = FileLock(self.staging_root / "_commit.lock", timeout=LOCK_TIMEOUT_SECONDS, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunHeldError(
                f"{self.root}: another process has been publishing for {LOCK_TIMEOUT_SECONDS:.0f} seconds; "
                "run the same command again when it has finished"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def hold(self, stem: str) -> FileLock | None:
        """The lock of a run until `let_go`, or the process's death; None when another holds it.

        Both happen under `locked()`: nobody can then have opened a lock file that is about to be removed.
        """
        lock = FileLock(self.staging_root / f"{stem}{_LOCK_SUFFIX}", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def is_held(self, stem: str) -> bool:
        """Whether a living process works on the run. Under `locked()`, as `hold`."""
        if (lock := self.hold(stem)) is None:
            return True
        self.let_go(lock)
        return False

    def let_go(self, lock: FileLock) -> None:
        """Free the lock of a run, and remove its file."""
        try:
            Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    def check(self, run: Run, sink: str) -> None:
        """Raise unless `run` can be published here by a sink of this type."""
        try:
            self._probe()
            self._refuse_what_is_in_the_way(run.streams)
            self._refuse_other_formats(run.cluster, sink)
        except OSError as error:
            if error.errno in DISK_TROUBLE:
                raise storage_error(self.root, error) from error
            raise ConfigError(
                f"{error.filename or self.root}: cannot publish here: {cause_of(error)}; "
                f"make it writable for user id {os.getuid()}, or name another directory"
            ) from error

    def _refuse_other_formats(self, cluster: str, sink: str) -> None:
        # One manifest of any cluster tells the format; those of this one must be readable.
        some = (read_manifest(path) for path in self.manifest_paths()[:1])
        for manifest in (*some, *self.manifests_of(cluster)):
            if manifest.sink != sink:
                raise ConfigError(
                    f"{self.root}: holds runs of a {manifest.sink} sink; name another directory for {sink}, "
                    "for readers expect one format"
                )

    def _probe(self) -> None:
        make_directories(self.staging_root)
        with self.locked():
            probe, new = self.staging_root / "_probe", self.staging_root / "_probe.new"
            try:
                write_durably(b"probe", probe, via=new)
                probe.unlink()
            finally:
                new.unlink(missing_ok=True)

    def _refuse_what_is_in_the_way(self, streams: Iterable[str]) -> None:
        device = self.staging_root.stat().st_dev
        for path in (self.manifests, *(self.root / stream for stream in streams)):
            if path.exists() and not path.is_dir():
                raise ConfigError(f"{path}: is in the way of the directory of this name; move it elsewhere")
            if path.exists() and path.stat().st_dev != device:
                raise ConfigError(
                    f"{path}: lies on another file system than {self.staging_root}, so files cannot be "
                    "renamed into place; publish to one file system"
                )
