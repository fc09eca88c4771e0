"""Checking a published tree against its manifests: is all that was published still there, and nothing else?

A manifest leaves the lake before its files do, so what is missing while its manifest stands is missing for good,
whatever is published at the same time; only what is left over must be looked at under the lake's lock.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from crdbexport.disk import cause_of, storage_errors
from crdbexport.errors import ConfigError, shown
from crdbexport.file_names import escaped, file_stem, snapshot_stem
from crdbexport.sinks.findings import Finding, Tally, Verification
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest, ManifestFile, decode_manifest, lost_its_checksum
from crdbexport.sinks.rereading import difference, rows_read_back
from crdbexport.sinks.strays import stray_files

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FINISHED_BY = "run any export to this directory, which finishes that first"

log = logging.getLogger(__name__)


def verify(
    directory: str | os.PathLike[str],
    *,
    cluster: str | None = None,
    watch: Callable[[Tally], None] | None = None,
) -> Verification:
    """Read a published directory again, and compare it with its manifests; runs may be published meanwhile.

    Raises ConfigError when nothing was published there, or nothing of `cluster`; StorageError when the directory
    cannot be listed; RunHeldError when its lock cannot be had. `watch` is called before each file.
    """
    lake = Lake(Path(directory).absolute())
    lake.must_exist()
    with storage_errors(lake.root):
        check = _Check(lake, cluster, watch)
        findings = (*check.runs(), *check.leftovers())
    if cluster is not None and not check.tally.runs_listed and not findings:
        raise ConfigError(f"{lake.root}: holds nothing of cluster {shown(cluster)}; name one that was exported here")
    counts = asdict(check.tally)
    del counts["runs_listed"]
    return Verification(str(directory), findings=findings, **counts)


class _Check:
    """One pass over a lake."""

    def __init__(self, lake: Lake, cluster: str | None, watch: Callable[[Tally], None] | None) -> None:
        self._lake = lake
        self._cluster = cluster
        self._watch = watch
        self.tally = Tally()

    def runs(self) -> Iterator[Finding]:
        """What is wrong with published runs."""
        paths = self._lake.manifest_paths(self._cluster)
        self.tally.runs_listed = len(paths)
        for path in paths:
            yield from self._run(path)
            self.tally.runs += 1

    def _run(self, path: Path) -> list[Finding]:
        """What is wrong with a run, unless it is superseded while it is looked at."""
        place = path.relative_to(self._lake.root).as_posix()
        while True:
            try:
                seen = _identity(path)
                findings = list(self._manifest(place, path.stem, path.read_bytes()))
                if not findings or _identity(path) == seen:
                    return findings
            except FileNotFoundError:
                return []
            except OSError as error:
                return [_unreadable(place, error)]

    def _manifest(self, place: str, stem: str, data: bytes) -> Iterator[Finding]:
        try:
            manifest = decode_manifest(data)
        except ConfigError as error:
            yield Finding(place, "manifest", str(error))
            return
        for problem in _contradictions(manifest, stem, data):
            yield Finding(place, "manifest", f"{problem}; restore it from a copy")
        for file in manifest.files:
            if self._watch is not None:
                self._watch(self.tally)
            if (found := self._file(manifest, file, place)) is not None:
                yield found

    def _file(self, manifest: Manifest, file: ManifestFile, named_by: str) -> Finding | None:
        restore = f"restore it from a copy, or remove {named_by} and then the files that it names"
        try:
            with self._lake.place(file).open("rb") as opened:
                if problem := difference(opened, file):
                    return Finding(file.path, "altered", f"{problem}; {restore}")
                opened.seek(0)
                self.tally.rows += rows_read_back(opened, manifest, file)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return Finding(file.path, "missing", f"there is no such file; {restore}")
        except OSError as error:
            return _unreadable(file.path, error)
        except ValueError as error:
            return Finding(file.path, "unfit", f"{error}; {restore}")
        self.tally.files += 1
        self.tally.size_bytes += file.size_bytes
        return None

    def leftovers(self) -> Iterator[Finding]:
        """Files that belong to no run, and what dead processes have left half done."""
        if not stray_files(self._lake) and not _half_done(self._lake):
            return
        with _undisturbed(self._lake):
            for path in stray_files(self._lake):
                if self._concerned_by(PurePosixPath(path).name):
                    message = "no manifest names this file, and readers read it; remove it, or move it elsewhere"
                    yield Finding(_in_utf8(path), "orphan", message)
            for stem in _half_done(self._lake):
                yield from self._interrupted(stem)

    def _interrupted(self, stem: str) -> Iterator[Finding]:
        prepared = self._lake.prepared(stem)
        aside = [other for other in self._lake.set_aside(stem) if self._concerned_by(f"{other}.")]
        place = f"{self._lake.staging_root.name}/{stem}"
        if prepared.exists() and self._concerned_by(f"{stem}."):
            try:
                run = f"run {shown(decode_manifest(prepared.read_bytes()).run_id)}"
            except ConfigError as error:
                yield Finding(f"{place}/{prepared.name}", "manifest", str(error))
            else:
                message = f"{run} was being published when its process died; {_FINISHED_BY}"
                yield Finding(f"{place}/{prepared.name}", "interrupted", message)
        elif aside and not _is_held(self._lake, stem):
            message = f"the files of {', '.join(aside)} were being removed when a process died; {_FINISHED_BY}"
            yield Finding(place, "interrupted", message)

    def _concerned_by(self, name: str) -> bool:
        return self._cluster is None or name.startswith(f"{escaped(self._cluster)}.")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _unreadable(path: str, error: OSError) -> Finding:
    return Finding(path, "unreadable", f"{cause_of(error)}; mend that, then verify it again")


def _contradictions(manifest: Manifest, stem: str, data: bytes) -> Iterator[str]:
    if lost_its_checksum(data):
        yield "the manifest was changed, for it has no checksum any more"
    # In a bucket, and so in a copy of one, a manifest has the name of its snapshot.
    if stem not in (
        file_stem(manifest.cluster, manifest.run_id),
        snapshot_stem(manifest.cluster, manifest.logical_time),
    ):
        yield f"the manifest is that of run {shown(manifest.run_id)} of cluster {shown(manifest.cluster)}"
    if manifest.rows != {file.stream: file.rows for file in manifest.files}:
        yield "the rows by stream are not those of the files"


def _half_done(lake: Lake) -> list[str]:
    return [stem for stem in lake.unfinished() if lake.prepared(stem).exists() or lake.set_aside(stem)]


def _is_held(lake: Lake, stem: str) -> bool:
    try:
        return lake.is_held(stem)
    except OSError as error:
        if error.errno not in _DENIED:
            raise
        return True  # Who may not look takes it for a living process's own affair.


@contextmanager
def _undisturbed(lake: Lake) -> Iterator[None]:
    """Keep others from publishing, as far as this process may."""
    with ExitStack() as held:
        try:
            if lake.staging_root.is_dir():
                held.enter_context(lake.locked())
        except OSError as error:
            if error.errno not in _DENIED:
                raise
            log.warning("%s: without its lock, runs that publish now may be told as interrupted", lake.root)
        yield


def _in_utf8(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
