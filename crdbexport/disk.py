"""Durable file operations, and one error for a disk that is full or fails."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crdbexport.errors import StorageError

_MIB = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DISK_TROUBLE = _FULL | {errno.EIO, errno.EMFILE, errno.ENFILE}
PRIVATE, PRIVATE_DIRECTORY, PUBLIC = 0o600, 0o700, 0o666
NEW_CONTENT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def storage_errors(place: Path, needed_bytes: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the path and, where known, the bytes needed."""
    try:
        yield
    except OSError as error:
        raise storage_error(place, error, needed_bytes()) from error


def storage_error(place: Path, error: OSError, needed_bytes: int = 0) -> StorageError:
    """The error for `error`, which happened at or below `place`."""
    where = error.filename or place
    if error.errno not in _FULL:
        return StorageError(f"{where}: {cause_of(error)}; mend that, then run the same command")
    needed = f" (more than {needed_bytes:,} bytes are needed)" if needed_bytes else ""
    return StorageError(f"{where}: {cause_of(error)}{needed}; free space, then run the same command")


def cause_of(error: OSError) -> str:
    """The operating system's own words for the error."""
    return os.strerror(error.errno) if error.errno else str(error)


def sync(path: Path) -> None:
    """Return once a file's bytes, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Sync each path once."""
    for path in sorted(set(paths)):
        sync(path)


def make_directories(path: Path, *, mode: int = 0o777) -> None:
    """Create `path` and what is missing above it, durably; the modes of those above follow the umask."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directories(path.parent)
    path.mkdir(exist_ok=True, mode=mode)
    sync(path.parent)


def private_directory(path: Path) -> None:
    """Make a directory that only its owner may enter, durably; its parent is there.

    Raises PermissionError where one is there already through which others could turn private files elsewhere.
    """
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY)
        sync(path.parent)
    except FileExistsError:
        found = path.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if not ours or found.st_mode & OTHERS_WRITE:
            what = "it is no directory, belongs to another user, or others may write to it"
            raise PermissionError(errno.EPERM, what, str(path)) from None


def write_durably(data: bytes, path: Path, *, via: Path) -> None:
    """Let `data` appear at `path` at once and for good. `via` is a temporary name on the same file system."""
    # Not `tempfile`: its files are 0600 whatever the umask. Others may have left a link at the name.
    with os.fdopen(os.open(via, NEW_CONTENT, PUBLIC), "wb") as file:
        file.write(data)
    sync(via)
    via.replace(path)
    sync(path.parent)


def private_file(path: Path, *, append: bool = False, large: bool = False) -> BinaryIO:
    """A new or continued file that only its owner may read; a link in its place is refused.

    A `large` one is written by the mebibyte, which takes half the time where many small parts come.
    """
    flags = NEW_CONTENT if not append else NEW_CONTENT & ~os.O_TRUNC | os.O_APPEND
    return os.fdopen(os.open(path, flags, PRIVATE), "wb", buffering=_MIB if large else -1)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, if it is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_if_empty(*directories: Path) -> None:
    """Remove each directory that holds nothing, innermost first."""
    for directory in directories:
        with suppress(OSError):
            directory.rmdir()
