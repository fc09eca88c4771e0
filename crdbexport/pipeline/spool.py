"""The run's own copy of its batches on disk: written once, read by every sink at its own pace."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from crdbexport.disk import storage_error
from crdbexport.errors import StorageError
from crdbexport.sinks.base import Batch

PRIVATE = 0o600


class SpooledBatch(msgspec.Struct, frozen=True):
    """One batch in the spool: its stream, its place in that stream, and its number of rows."""

    stream: str
    sequence: int
    rows: int


class SpoolCancelledError(Exception):
    """The run ended before everything was read; `reason` says why."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Spool:
    """Batches in the order in which they were read; any number of readers, each from the start.

    One thread appends and then seals; readers wait for what is still to come. Files hold one batch each, as Arrow IPC.
    """

    def __init__(self, directory: Path, sealed: tuple[SpooledBatch, ...] | None = None) -> None:
        self.directory = directory
        self._batches: list[SpooledBatch] = list(sealed or ())
        self._sequences = Counter(batch.stream for batch in self._batches)
        self._sealed = sealed is not None
        self._cancelled: BaseException | None = None
        self._changed = threading.Condition()

    @property
    def batches(self) -> tuple[SpooledBatch, ...]:
        return tuple(self._batches)

    def next_sequence(self, stream: str) -> int:
        return self._sequences[stream]

    def append(self, stream: str, data: pa.RecordBatch) -> None:
        """Write the batch down, then let the readers have it; raises `StorageError` when the disk does not take it."""
        self.check()
        path = self._path(len(self._batches))
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with (
                private_file(path) as file,
                pa.ipc.new_stream(file, data.schema, options=options) as out,
            ):
                out.write_batch(data)
        except OSError as error:
            raise storage_error(path, error, data.nbytes) from error
        with self._changed:
            self._batches.append(SpooledBatch(stream, self._sequences[stream], data.num_rows))
            self._sequences[stream] += 1
            self._changed.notify_all()

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
        path = self._path(number)
        try:
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                data = stream.read_next_batch()
            if data.num_rows != self._batches[number].rows:
                raise pa.ArrowInvalid(f"{data.num_rows} rows instead of {self._batches[number].rows}")
            return data
        except (OSError, pa.ArrowInvalid, StopIteration) as error:
            raise StorageError(f"{path}: cannot be read back ({error}); give the run another --run-id") from error

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.arrows"


def private_file(path: Path, *, append: bool = False) -> BinaryIO:
    """A new or continued file that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, PRIVATE), "wb")
