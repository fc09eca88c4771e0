"""A delivery to a sink that is made in the process which delivers; as a value, so that it can be sent there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crdbexport.sinks.base import Run, Sink, SinkConfig
from crdbexport.testing.children import without_room
from crdbexport.testing.feed import Feed
from crdbexport.testing.offline import go_offline

Fault = Callable[[Sink], Sink]


def no_fault(sink: Sink) -> Sink:
    return sink


@dataclass(frozen=True)
class Delivery:
    """Of the sink, its class and its options are all that there is: an export makes it of these, too.

    `fault` wraps it; with `room_bytes`, no file grows beyond; `offline`, there is no network.
    """

    kind: type[Sink]
    config: SinkConfig
    run: Run
    batches: Sequence[tuple[str, pa.RecordBatch]]
    directory: Path
    patience: float
    fault: Fault = no_fault
    room_bytes: int | None = None
    offline: bool = False

    def __call__(self) -> dict[str, Any]:
        """Deliver; answer what became of it, and how many calls of the commit were seen by a fault that counts them."""
        if self.offline:
            go_offline()
        sink = self.fault(self.kind(self.config))
        feed = Feed(self.run, self.batches, sink, self.directory, patience=self.patience)
        if self.room_bytes is not None:
            without_room(self.room_bytes)
        feed.begin().wait()
        return {"status": feed.status, "error": feed.told, "calls": getattr(sink, "seen", 0)}
