"""Where one trial's records go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crdbexport import Run


@dataclass(frozen=True)
class Target:
    """A directory of the trial's own, the address of its server if it has one, and the run that is delivered now."""

    directory: Path
    address: str
    mode: str
    run: Run

    @property
    def merges(self) -> bool:
        return self.mode.startswith("merge")


def grouped(data: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of at least so many rows, but for the last."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in data:
        waiting.append(batch)
        held += batch.num_rows
        if held >= rows:
            yield pa.Table.from_batches(waiting)
            waiting, held = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)
