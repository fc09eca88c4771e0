"""Having a batch taken: after a pause where the sink is busy, in parts where it refuses records for good."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from crdbexport.errors import RecordRefusedError, SinkBusyError, SinkError, StrictRefusalError
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.sinks.base import Batch

BUSY_BASE_SECONDS = 0.5
BUSY_CAP_SECONDS = 30.0


@dataclass
class BatchWriter:
    """Has one sink take batches; what it refuses for good is set aside, in a strict run it ends the sink.

    `write` hands a batch to the sink, `pause` waits, `taken` is told of what the sink took. `accepted` counts that by
    stream.
    """

    write: Callable[[Batch], None]
    pause: Callable[[float], None]
    taken: Callable[[Batch], None]
    dead_letters: DeadLetters
    timeout_seconds: float
    strict: bool = False
    accepted: Counter[str] = field(default_factory=Counter)

    def deliver(self, batch: Batch) -> None:
        """Return once each record is taken, or kept as a dead letter."""
        deadline = time.monotonic() + self.timeout_seconds
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            try:
                self._write(part, deadline)
            except RecordRefusedError as error:
                waiting.extend(self._set_aside(part, error))
            else:
                self._note_taken(part)

    def _write(self, part: Batch, deadline: float) -> None:
        busy = 0
        while True:
            try:
                self.write(part)
            except SinkBusyError as error:
                busy += 1
                self._wait(error, busy, deadline)
            else:
                return

    def _wait(self, error: SinkBusyError, attempt: int, deadline: float) -> None:
        backoff = random.uniform(0, min(BUSY_CAP_SECONDS, BUSY_BASE_SECONDS * 2**attempt))  # noqa: S311 (jitter)
        seconds = backoff if error.retry_after is None else max(0.0, error.retry_after)
        if time.monotonic() + seconds > deadline:
            raise SinkError(f"busy for longer than {self.timeout_seconds:g} s: {error}") from error
        self.pause(seconds)

    def _set_aside(self, part: Batch, error: RecordRefusedError) -> list[Batch]:
        """Keep what was refused as dead letters; answers what is still to be written, last first."""
        if self.strict:
            raise StrictRefusalError(f"refused records for good, and --strict is given: {error.reason}")
        if error.record_ids:
            rest = self.dead_letters.keep(part, error.record_ids, error.reason)
        elif part.data.num_rows > 1:
            # The sink cannot tell which: halves are tried until it is known.
            half = part.data.num_rows // 2
            return [replace(part, data=part.data.slice(half)), replace(part, data=part.data.slice(0, half))]
        else:
            rest = self.dead_letters.keep(part, part.data.column("record_id").to_pylist(), error.reason)
        if error.rest_written:
            self._note_taken(rest)
            return []
        return [rest] if rest.data.num_rows else []

    def _note_taken(self, part: Batch) -> None:
        self.accepted[part.stream] += part.data.num_rows
        if part.data.num_rows:
            self.taken(part)
