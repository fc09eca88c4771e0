"""What a sink was given of a run and cannot publish before it commits, in files that nobody else reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from filelock import lock_descriptor

from crdbexport.disk import private_file, remove_tree, storage_errors
from crdbexport.sinks.base import Batch, Run


class Staging:
    """The records of one attempt at a run, a file a stream, in a private directory below `parent`.

    For sinks whose target takes a stream in one commit. Memory holds one batch, whatever the size of the run. What a
    killed process left of the same run to the same `target` is removed when the next attempt begins.

    Raises StorageError when the disk is full or fails.
    """

    def __init__(self, run: Run, target: str, parent: Path | None = None) -> None:
        self._run = run
        self._parent = parent or Path(tempfile.gettempdir())
        digest = sha256("\0".join((target, run.sink_name, run.cluster, run.run_id)).encode()).hexdigest()[:16]
        self._prefix = f"crdbexport-{digest}-"
        self._rows = dict.fromkeys(run.streams, 0)
        self._files: dict[str, BinaryIO] = {}
        self._writers: dict[str, pa.RecordBatchStreamWriter] = {}
        self._held = ExitStack()
        with storage_errors(self._parent):
            self._parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self.directory = self._made()

    def write(self, batch: Batch) -> None:
        """Take the batch."""
        with storage_errors(self.directory):
            if batch.stream not in self._writers:
                file = self._files[batch.stream] = private_file(self._path(batch.stream), large=True)
                self._writers[batch.stream] = pa.ipc.new_stream(file, self._run.streams[batch.stream])
            self._writers[batch.stream].write_batch(batch.data)
        self._rows[batch.stream] += batch.data.num_rows

    def rows(self, stream: str) -> int:
        """How many records of the stream were taken."""
        return self._rows[stream]

    @contextmanager
    def read(self, stream: str) -> Iterator[pa.RecordBatchReader]:
        """The stream's batches, from the first, as often as asked; after that nothing more is taken of it."""
        with storage_errors(self.directory):
            if stream not in self._writers:
                yield pa.RecordBatchReader.from_batches(self._run.streams[stream], [])
                return
            self._finish(stream)
            with pa.OSFile(str(self._path(stream))) as file, pa.ipc.open_stream(file) as reader:
                yield reader

    def close(self) -> None:
        """Remove everything; may be called twice."""
        with self._held:
            for stream in self._files:
                with suppress(OSError):  # What a full disk did not take is not wanted any more.
                    self._finish(stream)
            remove_tree(self.directory)

    def _finish(self, stream: str) -> None:
        if not self._files[stream].closed:
            with self._files[stream]:
                self._writers[stream].close()

    def _path(self, stream: str) -> Path:
        return self.directory / f"{stream}.arrows"

    def _made(self) -> Path:
        while True:
            directory = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))
            # An attempt that begins just now may take it for what was left, and remove it.
            if self._held.enter_context(_kept_off(directory)):
                return directory

    def _sweep(self) -> None:
        for left in self._parent.glob(f"{self._prefix}*"):
            with suppress(OSError), _kept_off(left) as ours:  # It may be another user's.
                if ours:
                    remove_tree(left)


@contextmanager
def _kept_off(directory: Path) -> Iterator[bool]:
    """Keep other processes off the directory; answers whether they are, for it may be theirs, or gone.

    The directory itself is locked: a lock file in it would come into being again when it has just been removed.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        yield lock_descriptor(descriptor, blocking=False) and directory.exists()
    finally:
        os.close(descriptor)
