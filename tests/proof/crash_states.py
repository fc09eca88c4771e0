"""What a power cut may leave of recorded file operations, on a file system that promises little.

What was not synced is kept, lost, torn or zeroed: every file by itself, and every change of a directory by itself.
Promised are only four things: what was synced stays; a rename happens as a whole or not at all; the changes of one name
happen in order; a directory goes after what was in it. Real file systems promise more, so that a state may be one that
none of them leaves.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

Place = tuple[int, str]
"""A name in a directory; directories and files are known by their inode numbers."""
Tree = dict[str, bytes | None]
"""Files with their bytes, and directories, by path."""


@dataclass(frozen=True)
class Change:
    """One change of directories that happens at once: what each place holds from then on, None for nothing."""

    entries: tuple[tuple[Place, int | None], ...]
    emptied: int | None = None
    """The directory that it removes."""

    def touches(self, directory: int) -> bool:
        return any(place[0] == directory for place, _ in self.entries)

    def needs(self, earlier: Change) -> bool:
        """Whether it cannot have happened without the earlier one."""
        shared = {place for place, _ in self.entries} & {place for place, _ in earlier.entries}
        return bool(shared) or (self.emptied is not None and earlier.touches(self.emptied))


@dataclass(frozen=True)
class Write:
    """A file holds these bytes from then on; `safely` where that is durable at once, or not at all."""

    inode: int
    data: bytes
    safely: bool = False


@dataclass(frozen=True)
class Sync:
    """A file or directory was synced."""

    inode: int


@dataclass(frozen=True)
class Mark:
    """Something was promised to whoever looks on."""

    promise: str


Step = Change | Write | Sync | Mark


@dataclass(frozen=True)
class CrashState:
    """What is there after the power is back, and what had been promised by then."""

    tree: Tree
    promised: frozenset[str]


@dataclass
class Disk:
    """A file system at work: what is durable of it, and what is not."""

    root: int
    directories: set[int]
    entries: dict[Place, int]
    synced: dict[int, bytes]
    written: dict[int, bytes] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def take(self, step: Change | Write | Sync) -> None:
        match step:
            case Change():
                self.pending.append(step)
            case Write(inode, data, safely=True):
                self.synced[inode] = data
            case Write(inode, data):
                self.written[inode] = data
            case Sync(inode) if inode in self.written:
                self.synced[inode] = self.written.pop(inode)
            case Sync(inode):
                self._sync_directory(inode)

    def _sync_directory(self, directory: int) -> None:
        durable = _with_needs(self.pending, (n for n, each in enumerate(self.pending) if each.touches(directory)))
        self.entries = _applied(self.entries, [self.pending[number] for number in sorted(durable)])
        self.pending = [each for number, each in enumerate(self.pending) if number not in durable]

    def crashes(self, draw: random.Random, limit: int) -> Iterator[Tree]:
        """What may be left by a power cut now: everything that may, or `limit` cases where that is more."""
        files = {inode: _remains(self.synced.get(inode), data) for inode, data in self.written.items()}
        cases = 2 ** len(self.pending)
        for remains in files.values():
            cases *= len(remains)
        choices = self._all(files) if cases <= limit else self._some(files, draw, limit)
        for happened, contents in choices:
            yield self._tree(happened, {**self.synced, **contents})

    def _all(self, files: dict[int, list[bytes]]) -> Iterator[tuple[set[int], dict[int, bytes]]]:
        numbers = range(len(self.pending))
        subsets = (set(each) for size in range(len(numbers) + 1) for each in itertools.combinations(numbers, size))
        possible = [each for each in subsets if _with_needs(self.pending, each) == each]
        for happened, data in itertools.product(possible, itertools.product(*files.values())):
            yield happened, dict(zip(files, data, strict=True))

    def _some(
        self, files: dict[int, list[bytes]], draw: random.Random, limit: int
    ) -> Iterator[tuple[set[int], dict[int, bytes]]]:
        everything = set(range(len(self.pending)))
        whole = dict(self.written)
        yield from ((set(range(count)), whole) for count in range(len(self.pending) + 1))
        for number in everything:
            yield _with_needs(self.pending, {number}), whole
            lost = {other for other in everything if number in _with_needs(self.pending, {other})}
            yield everything - lost, whole
        for inode, remains in files.items():
            yield from ((everything, {**whole, inode: data}) for data in remains)
        for _ in range(limit):
            share = draw.random()
            happened = _with_needs(self.pending, {number for number in everything if draw.random() < share})
            yield happened, {inode: draw.choice(remains) for inode, remains in files.items()}

    def _tree(self, happened: set[int], contents: dict[int, bytes]) -> Tree:
        entries = _applied(self.entries, [self.pending[number] for number in sorted(happened)])
        names: dict[int, list[tuple[str, int]]] = {}
        for (directory, name), inode in entries.items():
            names.setdefault(directory, []).append((name, inode))
        tree: Tree = {}
        waiting = [("", self.root)]
        while waiting:
            path, directory = waiting.pop()
            for name, inode in names.get(directory, ()):
                if inode in self.directories:
                    tree[path + name] = None
                    waiting.append((f"{path}{name}/", inode))
                else:
                    tree[path + name] = contents.get(inode, b"")
        return tree


def crash_states(disk: Disk, steps: Iterable[Step], draw: random.Random, limit: int) -> list[CrashState]:
    """The distinct trees that a power cut may leave between any two steps, each with all that may be promised then.

    No more than about `limit` of them are drawn at each step.
    """
    promised: frozenset[str] = frozenset()
    found: dict[frozenset[tuple[str, bytes | None]], CrashState] = {}
    for step in (None, *steps):
        if isinstance(step, Mark):
            promised |= {step.promise}
        elif step is not None:
            disk.take(step)
        for tree in disk.crashes(draw, limit):
            found[frozenset(tree.items())] = CrashState(tree, promised)
    return list(found.values())


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory in memory, where there is one: thousands of trees are made in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="crdbexport-", dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


def materialise(tree: Tree, root: Path) -> None:
    """Make the tree real below `root`."""
    for path in sorted(tree):
        data = tree[path]
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def _with_needs(pending: Sequence[Change], numbers: Iterable[int]) -> set[int]:
    """These changes, and all that they need."""
    chosen = set(numbers)
    for number in range(len(pending) - 1, -1, -1):
        if number in chosen:
            chosen |= {other for other in range(number) if pending[number].needs(pending[other])}
    return chosen


def _applied(entries: dict[Place, int], changes: Iterable[Change]) -> dict[Place, int]:
    entries = dict(entries)
    for change in changes:
        for place, inode in change.entries:
            if inode is None:
                entries.pop(place, None)
            else:
                entries[place] = inode
    return entries


def _remains(synced: bytes | None, written: bytes) -> list[bytes]:
    """What may be found of a file that was written and not synced."""
    half = len(written) // 2
    torn = written[:half]
    found = [written, b"", synced or b"", torn, torn + bytes(len(written) - half), bytes(len(written))]
    return list(dict.fromkeys(found))
