"""From rows to the spool: batches are built, transformed, counted and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from crdbexport.pipeline.batches import Batcher
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.transforming import TransformChain
from crdbexport.report import StreamCounts


@dataclass
class Intake:
    """Takes rows in the order of the run; not for more than one thread."""

    batcher: Batcher
    chain: TransformChain
    spool: Spool
    streams: Sequence[str]
    counts: dict[str, StreamCounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = {name: StreamCounts() for name in self.streams}

    def add(self, stream: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for name, data in self.batcher.add(stream, rows):
            self._pass_on(name, data)

    def finish(self) -> None:
        """Pass on what is left; the spool is not sealed here."""
        for name, data in self.batcher.finish():
            self._pass_on(name, data)

    def _pass_on(self, stream: str, data: pa.RecordBatch) -> None:
        counts = self.counts[stream]
        sequence = self.spool.next_sequence(stream)
        kept = self.chain.apply(stream, self.batcher.envelope.cluster, data, sequence)
        if kept.num_rows:
            self.spool.append(stream, kept)
            counts.batches += 1
        counts.extracted += data.num_rows
        counts.filtered += data.num_rows - kept.num_rows
