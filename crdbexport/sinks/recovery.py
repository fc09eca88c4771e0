"""What follows a prepared manifest: finishing a publication, taking it back, and clearing up after dead runs.

A prepared manifest says that every staged file is whole and durable. Whoever takes the directory's lock next
finishes it, so one that is seen under the lock was left by a dead process, and runs are published in the order
in which they were prepared. Every function here is called under the lock, and may be repeated after a crash at
any point.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crdbexport.disk import make_directories, remove_if_empty, remove_tree, sync, sync_all
from crdbexport.errors import RunHeldError, StorageError
from crdbexport.file_names import file_stem
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest, ManifestFile, read_manifest, write_manifest

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
        set_aside(lake, stem, same_snapshot(lake, manifest))
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


def set_aside(lake: Lake, stem: str, manifests: Iterable[Manifest]) -> None:
    """Take these runs out of the lake; their files go with `clear_staging`."""
    # A manifest leaves before its files, so none ever names a missing file. It moves into staging, where even
    # after a crash `clear_staging` learns which files to remove.
    for manifest in manifests:
        other = file_stem(manifest.cluster, manifest.run_id)
        lake.manifest(other).replace(lake.aside(stem, other))
    sync_all([lake.staging(stem), lake.manifests])


def same_snapshot(lake: Lake, manifest: Manifest) -> Iterator[Manifest]:
    """The manifests of other runs of the same snapshot."""
    for other in lake.manifests_of(manifest.cluster):
        if other.same_snapshot(manifest) and other.run_id != manifest.run_id:
            yield other


def clear_staging(lake: Lake, stem: str) -> None:
    """Remove the files of runs set aside, then the staging directory, unless a prepared manifest is in it."""
    if lake.prepared(stem).exists():
        return
    staging = lake.staging(stem)
    with logged_for_later(f"clearing {staging}"):
        for other, path in lake.set_aside(stem).items():
            # That run may have been published anew meanwhile; then its files are current ones.
            if not lake.manifest(other).exists():
                remove_files(lake.place(file) for file in read_manifest(path).files)
        remove_tree(staging)
        sync(lake.staging_root)


def remove_files(places: Iterable[Path]) -> None:
    """Remove published files, as far as they are there, and days that are left empty."""
    for place in places:
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
