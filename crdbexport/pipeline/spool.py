"""The run's own copy of its batches on disk: written once, read by every sink at its own pace."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from crdbexport.disk import private_file, storage_error, storage_errors, sync
from crdbexport.errors import StorageError
from crdbexport.sinks.base import Batch

MEBIBYTE = 2**20
GIVE_ANOTHER = "give the run another --run-id"


class SpooledBatch(msgspec.Struct, frozen=True):
    """One batch in the spool: its stream, its place in that stream, its number of rows, and its file's checksum.

    Arrow IPC has no checksum of its own, and a file that is cut at the end of a batch looks whole.
    """

    stream: str
    sequence: int
    rows: int
    size_bytes: int
    crc32: int


class SpoolCancelledError(Exception):
    """The run ended before everything was read; `reason` says why."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Spool:
    """Batches in the order in which they were read; any number of readers, each from the start.

    One thread appends and then seals; readers wait for what is still to come. Files hold one batch each, as Arrow IPC.
    What is not sealed does not outlive the process: it is built anew from what the cluster answered.
    """

    def __init__(
        self, directory: Path, sealed: tuple[SpooledBatch, ...] | None = None, *, limit_bytes: int | None = None
    ) -> None:
        self.directory = directory
        self._limit_bytes = limit_bytes
        self._batches: list[SpooledBatch] = list(sealed or ())
        self._sequences = Counter(batch.stream for batch in self._batches)
        self._size_bytes = sum(batch.size_bytes for batch in self._batches)
        self._sealed = sealed is not None
        self._cancelled: BaseException | None = None
        self._changed = threading.Condition()

    @property
    def batches(self) -> tuple[SpooledBatch, ...]:
        return tuple(self._batches)

    @property
    def size_bytes(self) -> int:
        """What the batches take on disk."""
        return self._size_bytes

    def next_sequence(self, stream: str) -> int:
        return self._sequences[stream]

    def append(self, stream: str, data: pa.RecordBatch) -> None:
        """Write the batch down, then let the readers have it; raises `StorageError` when the disk does not take it."""
        self.check()
        path = self._path(len(self._batches))
        body = _encoded(data)
        self._refuse_more_than_may_be(len(body))
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with private_file(path) as file:
                file.write(body)
        except OSError as error:
            raise storage_error(path, error, len(body)) from error
        spooled = SpooledBatch(stream, self._sequences[stream], data.num_rows, len(body), zlib.crc32(body))
        with self._changed:
            self._batches.append(spooled)
            self._size_bytes += len(body)
            self._sequences[stream] += 1
            self._changed.notify_all()

    def _refuse_more_than_may_be(self, more: int) -> None:
        if self._limit_bytes is not None and self._size_bytes + more > self._limit_bytes:
            raise StorageError(
                f"{self.directory}: the records of this run take more than {self._limit_bytes // MEBIBYTE:,} MiB; "
                "raise --spool-limit, or export fewer streams or databases a run"
            )

    def sync(self) -> None:
        """Return once all batches survive a power cut."""
        with storage_errors(self.directory):
            for number in range(len(self._batches)):
                sync(self._path(number))
            if self._batches:
                sync(self.directory)
                sync(self.directory.parent)

    def seal(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def cancel(self, reason: BaseException) -> None:
        """Send every reader away."""
        with self._changed:
            self._cancelled = self._cancelled or reason
            self._changed.notify_all()

    def read(self) -> Iterator[Batch]:
        """All batches from the first on; ends once the spool is sealed, raises `SpoolCancelledError` if the run is."""
        number = 0
        while self._wait_for(number):
            spooled = self._batches[number]
            yield Batch(spooled.stream, spooled.sequence, self._load(number))
            number += 1

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the run ends, which raises `SpoolCancelledError`."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled is not None, seconds)
            self.check()

    def _wait_for(self, number: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or self._sealed or number < len(self._batches))
            self.check()
            return number < len(self._batches)

    def check(self) -> None:
        """Raise `SpoolCancelledError` if the run has ended."""
        if self._cancelled is not None:
            raise SpoolCancelledError(self._cancelled)

    def _load(self, number: int) -> pa.RecordBatch:
        path, spooled = self._path(number), self._batches[number]
        try:
            body = path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path}: cannot be read back ({error.strerror}); {GIVE_ANOTHER}") from error
        if (len(body), zlib.crc32(body)) != (spooled.size_bytes, spooled.crc32):
            raise StorageError(f"{path}: was changed since it was written; {GIVE_ANOTHER}")
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            return stream.read_next_batch()

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.arrows"


def _encoded(data: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
        out.write_batch(data)
    return sink.getvalue()
