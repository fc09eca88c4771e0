"""What follows a prepared manifest: finishing a publication, taking it back, and clearing up after dead runs.

A prepared manifest says that every staged file is whole and durable. Whoever takes the directory's lock next
finishes it, so one that is seen under the lock was left by a dead process, and runs are published in the order
in which they were prepared. Every function here is called under the lock, and may be repeated after a crash at
any point.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from crdbexport.disk import make_directories, remove_if_empty, remove_tree, sync, sync_all
from crdbexport.errors import RunHeldError, StorageError
from crdbexport.file_names import file_stem
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest, ManifestFile, read_manifest, write_manifest

_SUPERSEDED = "superseded."

log = logging.getLogger(__name__)


def finish_interrupted(lake: Lake) -> None:
    """Publish what crashed runs had prepared, and clear what others left behind."""
    finish_prepared(lake)
    for stem in lake.unfinished():
        if (lock := lake.hold(stem)) is not None:
            clear_staging(lake, stem)
            lake.let_go(lock)


def finish_prepared(lake: Lake) -> None:
    """Publish what crashed runs had prepared."""
    for stem in lake.unfinished():
        if lake.prepared(stem).exists():
            roll_forward(lake, stem)


def roll_forward(lake: Lake, stem: str) -> None:
    """Publish a prepared run."""
    manifest = read_manifest(lake.prepared(stem))
    make_directories(lake.manifests)
    for file in manifest.files:
        _put_in_place(lake, stem, file)
    # Directories may have been made by a process that died before it synced them.
    days = {lake.place(file).parent for file in manifest.files}
    sync_all(days | {day.parent for day in days} | {lake.root})
    write_manifest(manifest, lake.manifest(stem), via=lake.staging(stem) / "manifest.new")
    with logged_for_later("removing superseded runs"):
        _set_superseded_aside(lake, stem, manifest)
        lake.prepared(stem).unlink()
        sync(lake.staging(stem))


def _put_in_place(lake: Lake, stem: str, file: ManifestFile) -> None:
    staged, place = lake.staged(stem, file.stream), lake.place(file)
    if staged.exists():
        make_directories(place.parent)
        staged.replace(place)
    elif not place.exists():
        raise StorageError(
            f"{place}: vanished while it was being published; remove {lake.staging(stem)}, then run the same command"
        )


def withdraw(lake: Lake, stem: str, manifest: Manifest) -> None:
    """Take back a publication that failed before its manifest appeared.

    Files go back into staging, so that after a crash in between the publication can still be rolled forward.
    """
    if lake.manifest(stem).exists():
        return
    for file in manifest.files:
        staged, place = lake.staged(stem, file.stream), lake.place(file)
        if not staged.exists() and place.exists():
            place.replace(staged)
        remove_if_empty(place.parent, place.parent.parent)
    lake.prepared(stem).unlink(missing_ok=True)
    sync(lake.staging(stem))


def _set_superseded_aside(lake: Lake, stem: str, manifest: Manifest) -> None:
    # A manifest leaves before its files, so none ever names a missing file. It moves into staging, where even
    # after a crash `clear_staging` learns which files to remove.
    for other in same_snapshot(lake, manifest):
        name = lake.manifest(file_stem(other.cluster, other.run_id))
        name.replace(lake.staging(stem) / f"{_SUPERSEDED}{name.name}")
    sync_all([lake.staging(stem), lake.manifests])


def same_snapshot(lake: Lake, manifest: Manifest) -> Iterator[Manifest]:
    """The manifests of other runs of the same snapshot."""
    for other in lake.manifests_of(manifest.cluster):
        if other.same_snapshot(manifest) and other.run_id != manifest.run_id:
            yield other


def clear_staging(lake: Lake, stem: str) -> None:
    """Remove the files of superseded runs, then the staging directory, unless a prepared manifest is in it."""
    if lake.prepared(stem).exists():
        return
    staging = lake.staging(stem)
    with logged_for_later(f"clearing {staging}"):
        for path in sorted(staging.glob(f"{_SUPERSEDED}*")):
            # The superseded run may have been published anew meanwhile; then its files are current ones.
            if not (lake.manifests / path.name.removeprefix(_SUPERSEDED)).exists():
                _remove_files(lake, read_manifest(path))
        remove_tree(staging)
        sync(lake.staging_root)


def _remove_files(lake: Lake, manifest: Manifest) -> None:
    for file in manifest.files:
        place = lake.place(file)
        if place.exists():
            place.unlink()
            sync(place.parent)
            remove_if_empty(place.parent)


@contextmanager
def logged_for_later(task: str) -> Iterator[None]:
    """Log what keeps the task from being done instead of raising it: the next run to this directory does it."""
    try:
        yield
    except (OSError, RunHeldError) as error:
        log.warning("%s failed (%s); the next run to this directory tries again", task, error)
