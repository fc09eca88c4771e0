"""Notes what a program does to the files below a directory, as the steps that `crash_states` replays."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from crdbexport.pipeline.journal import Journal
from tests.proof.crash_states import Change, Disk, Mark, Place, Step, Sync, Write

OPERATIONS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "link")
JOURNAL = "journal.db"
JOURNALLED = "journalled"


class Recording:
    """The steps of a program, and the file system that they began with, all of which was durable.

    The tree is compared before and after every operation that changes directories or syncs: what differs was done in
    between, whoever did it. So it does not matter by which calls files are made and written.
    """

    def __init__(self, root: Path) -> None:
        self.steps: list[Step] = []
        self._root = root
        self._lock = threading.RLock()
        self._directories: set[int] = set()
        self._entries: dict[Place, int] = {}
        self._data: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self.look()
        self.steps.clear()
        durable = {**self._data, **{path.stat().st_ino: _serialized(path) for path in root.rglob(JOURNAL)}}
        self.disk = Disk(root.stat().st_ino, self._directories, dict(self._entries), durable)

    def promise(self, promise: str) -> None:
        with self._lock:
            self.look()
            self.steps.append(Mark(promise))

    @contextmanager
    def of_this_process(self) -> Iterator[None]:
        """Record what all threads do meanwhile. Nothing is really synced."""
        with pytest.MonkeyPatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, self._watched(getattr(os, name)))
            patch.setattr(os, "fsync", self._synced)
            patch.setattr(Journal, "_durably", self._journalled(Journal._durably))
            yield
        self.look()
        for descriptor in self._held.values():
            os.close(descriptor)

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.look()
                try:
                    return operation(*args, **kwargs)
                finally:
                    self.look()

        return watched

    def _synced(self, descriptor: int) -> None:
        with self._lock:
            self.look()
            self.steps.append(Sync(os.fstat(descriptor).st_ino))

    def _journalled(
        self, durably: Callable[[Journal], AbstractContextManager[None]]
    ) -> Callable[[Journal], AbstractContextManager[None]]:
        """SQLite is trusted: what it has committed in full is durable, if its file is."""

        @contextmanager
        def journalled(journal: Journal) -> Iterator[None]:
            self.look()
            with durably(journal):
                yield
            with self._lock, journal._lock:
                self.look()
                inode = journal.path.stat().st_ino
                self.steps += [Write(inode, journal._db.serialize(), safely=True), Mark(JOURNALLED)]

        return journalled

    def look(self) -> None:
        """Note what has changed since the last look."""
        with self._lock:
            entries, data = self._seen()
            before, self._entries = self._entries, entries
            self._note_changes(before, entries)
            for inode, content in data.items():
                if self._data.get(inode, b"") != content:
                    self.steps.append(Write(inode, content))
                self._data[inode] = content

    def _note_changes(self, before: dict[Place, int], now: dict[Place, int]) -> None:
        gone = {inode: place for place, inode in before.items() if now.get(place) != inode}
        for place, inode in now.items():
            if before.get(place) == inode:
                continue
            if inode in gone:  # Renamed; what it replaced is gone with it.
                self.steps.append(Change(((gone.pop(inode), None), (place, inode))))
            else:
                self.steps.append(Change(((place, inode),)))
            gone.pop(before.get(place, -1), None)
        for inode, place in gone.items():
            self.steps.append(Change(((place, None),), emptied=inode if inode in self._directories else None))

    def _seen(self) -> tuple[dict[Place, int], dict[int, bytes]]:
        entries: dict[Place, int] = {}
        data: dict[int, bytes] = {}
        waiting = [self._root]
        while waiting:
            directory = waiting.pop()
            above = directory.stat().st_ino
            for entry in os.scandir(directory):
                if entry.name.startswith(f"{JOURNAL}-"):
                    continue
                inode = entry.inode()
                entries[above, entry.name] = inode
                if entry.is_dir():
                    self._directories.add(inode)
                    waiting.append(Path(entry.path))
                elif entry.name != JOURNAL:
                    data[inode] = self._read(entry.path, inode)
        return entries, data

    def _read(self, path: str, inode: int) -> bytes:
        # Kept open, so that no later file gets the same inode number.
        descriptor = self._held.get(inode)
        if descriptor is None:
            descriptor = self._held[inode] = os.open(path, os.O_RDONLY)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _serialized(journal: Path) -> bytes:
    with closing(sqlite3.connect(journal)) as db:
        return db.serialize()


@contextmanager
def replaced(owner: object, name: str, function: object) -> Iterator[None]:
    """A planted mistake: something is done in another way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, function)
        yield


def no_sync_of(kind: Callable[[int], bool]) -> AbstractContextManager[None]:
    sync = os.fsync

    def forgetful(descriptor: int) -> None:
        if not kind(os.fstat(descriptor).st_mode):
            sync(descriptor)

    return replaced(os, "fsync", forgetful)


def no_sync_of_files() -> AbstractContextManager[None]:
    return no_sync_of(stat.S_ISREG)


def no_sync_of_directories() -> AbstractContextManager[None]:
    return no_sync_of(stat.S_ISDIR)
