"""What a cluster has answered, on disk until all of it is read: an append-only file that survives being cut short."""

from __future__ import annotations

import io
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct

import msgspec

from crdbexport.disk import private_file, storage_errors, sync
from crdbexport.errors import StorageError

# Before each entry: its length and its CRC-32.
HEADER = Struct("<II")
SYNC_SECONDS = 1.0
# Of the time that passes, this part at most goes into waiting for the disk.
SYNC_SHARE = 0.02


class Answers:
    """Keeps an answer for each question, for the attempt that comes after this one. May be used from any thread.

    An answer survives the death of the process as soon as it is kept, and a power cut soon after. What was not written
    to its end is not there. Raises `StorageError` where the disk does not take, or give, what is written; after that
    nothing more is answered, so that nothing is asked in vain.
    """

    _end: int
    _places: dict[int, int]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._trouble: StorageError | None = None
        self._open()

    def __bool__(self) -> bool:
        """Whether there is any answer."""
        return self._end > 0

    def recall(self, question: str) -> bytes | None:
        """What an earlier attempt kept for the question, and the last time if it did so twice."""
        if self._trouble is not None:
            raise self._trouble
        place = self._places.get(_number(question))
        if place is None:
            return None
        with self._at_work():
            entry = self._entry(place)
        if entry is None:
            return None
        asked, answer = msgspec.msgpack.decode(entry, type=tuple[str, bytes])
        return answer if asked == question else None

    def keep(self, question: str, answer: bytes) -> None:
        entry = msgspec.msgpack.encode((question, answer))
        record = memoryview(HEADER.pack(len(entry), zlib.crc32(entry)) + entry)
        try:
            with self._at_work():
                self._append(record)
                self._sync_sometimes()
        except StorageError as error:
            self._trouble = error
            raise

    def forget(self) -> None:
        """Drop all answers, so that everything is asked anew, and give their space back."""
        with self._at_work():
            self._file.truncate(0)
            self._places, self._end = {}, 0
            os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file; of one that holds nothing, nothing is left."""
        with self._lock:
            self._file.close()
            if not self._end:
                with suppress(OSError):
                    self._path.unlink()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock, storage_errors(self._path):
            if self._file.closed:
                raise StorageError(f"{self._path}: was closed, for the run has ended")
            yield

    def _open(self) -> None:
        with storage_errors(self._path):
            if not self._path.exists():
                private_file(self._path, append=True).close()
                sync(self._path.parent)
            self._file = io.FileIO(os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+")
            try:
                self._look()
            except BaseException:
                self._file.close()
                raise

    def _look(self) -> None:
        self._end, self._places = 0, {}
        for question, place, end in self._found():
            self._places[_number(question)], self._end = place, end
        self._file.truncate(self._end)
        self._sync_at = time.monotonic() + SYNC_SECONDS

    def _append(self, record: memoryview) -> None:
        """What fails half-way leaves a torn entry behind the end, which counts for nothing."""
        written = 0
        while written < len(record):
            written += os.pwrite(self._file.fileno(), record[written:], self._end + written)
        self._end += written

    def _sync_sometimes(self) -> None:
        began = time.monotonic()
        if began >= self._sync_at:
            os.fdatasync(self._file.fileno())
            ended = time.monotonic()
            self._sync_at = ended + max(SYNC_SECONDS, (ended - began) / SYNC_SHARE)

    def _found(self) -> Iterator[tuple[str, int, int]]:
        """The question of each entry that is whole, where it begins, and where it ends."""
        place = 0
        while entry := self._entry(place):
            try:
                question, _ = msgspec.msgpack.decode(entry, type=tuple[str, bytes])
            except msgspec.MsgspecError:
                return  # It is whole, but not ours.
            end = place + HEADER.size + len(entry)
            yield question, place, end
            place = end

    def _entry(self, place: int) -> bytes | None:
        """The entry that begins at `place`, if all of it is there."""
        header = os.pread(self._file.fileno(), HEADER.size, place)
        if len(header) < HEADER.size:
            return None
        length, checksum = HEADER.unpack(header)
        # A length that was torn may be anything; it must not be taken for an amount of memory.
        if place + HEADER.size + length > os.fstat(self._file.fileno()).st_size:
            return None
        entry = os.pread(self._file.fileno(), length, place + HEADER.size)
        return entry if len(entry) == length and zlib.crc32(entry) == checksum else None


def has_answers(path: Path) -> bool:
    """Whether the file at `path` holds anything, told without opening it."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _number(question: str) -> int:
    """A short name for the question: of hundreds of thousands, the texts themselves would fill the memory."""
    return hash(question)
