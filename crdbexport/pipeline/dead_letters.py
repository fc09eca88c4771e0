"""Records that a sink refused for good, kept with their reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.disk import private_file, storage_error, storage_errors, sync, sync_all
from crdbexport.sinks.base import Batch
from crdbexport.sinks.json_lines import json_rows


class _Letter(msgspec.Struct):
    record_id: str


class DeadLetters:
    """One sink's refused records: a private file of JSON lines, made when the first one comes.

    `redact` takes secrets out of the reasons, which sinks word.
    """

    def __init__(self, path: Path, sink: str, redact: Callable[[str], str] = str) -> None:
        self.path = path
        self._redact = redact
        self.counts: Counter[str] = Counter()
        self._sink = sink

    def forget(self) -> None:
        """Remove the letters of an earlier attempt: its sink starts over, and refuses anew what it refuses."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def record_ids(self) -> list[str]:
        """The ids of the records that are kept."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise storage_error(self.path, error) from error
        return [msgspec.json.decode(line, type=_Letter).record_id for line in lines]

    def sync(self) -> None:
        """Return once the letters survive a power cut."""
        if self.counts:
            with storage_errors(self.path):
                sync_all((self.path, self.path.parent, self.path.parent.parent))

    def become(self, others: DeadLetters) -> None:
        """Put these other letters in the place of those that are kept."""
        with storage_errors(self.path):
            if others.counts:
                others.sync()
                others.path.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)
            sync(self.path.parent)

    def keep(self, batch: Batch, record_ids: Collection[str], reason: str) -> Batch:
        """Write the named records down; answers the batch without them.

        Raises `ValueError` when the batch holds none of them, for then the same batch would come back for ever.
        """
        refused = pc.is_in(batch.data.column("record_id"), value_set=pa.array(list(record_ids), type=pa.string()))
        letters = batch.data.filter(refused)
        if not letters.num_rows:
            raise ValueError("it refused records that are not in the batch")
        self._write(batch.stream, letters, reason)
        self.counts[batch.stream] += letters.num_rows
        return Batch(batch.stream, batch.sequence, batch.data.filter(pc.invert(refused)))

    def _write(self, stream: str, letters: pa.RecordBatch, reason: str) -> None:
        ids = letters.column("record_id").to_pylist()
        lines = [
            msgspec.json.encode(
                {
                    "sink": self._sink,
                    "stream": stream,
                    "record_id": record_id,
                    "reason": self._redact(reason),
                    "record": msgspec.Raw(row),
                }
            )
            for record_id, row in zip(ids, json_rows(letters), strict=True)
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with private_file(self.path, append=True) as file:
                file.write(b"\n".join(lines) + b"\n")
        except OSError as error:
            raise storage_error(self.path, error) from error
