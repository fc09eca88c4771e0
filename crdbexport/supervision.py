"""Watching over a run that works on other threads: its progress, its timeouts, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crdbexport.errors import SinkError, StoppedError
from crdbexport.pipeline.delivery import Delivery
from crdbexport.pipeline.lane import Lane
from crdbexport.pipeline.spool import Spool
from crdbexport.reading import Reading

POLL_SECONDS = 0.05
STOP_SECONDS = 8.0


class Stop:
    """Ends a run from outside, from any thread or a signal handler."""

    def __init__(self) -> None:
        self.error: StoppedError | None = None

    def request(self, signal_number: int) -> None:
        self.error = self.error or StoppedError(signal_number)


@dataclass(frozen=True)
class Progress:
    """A run while it works: live counters, to be looked at and not touched. Nothing is read where `reading` is None."""

    reading: Reading | None
    lanes: Sequence[Lane]
    spool: Spool


Watcher = Callable[[Progress], None]


class Supervision:
    """Keeps an eye on a run until it is over, from the thread that called for it."""

    def __init__(self, reading: Reading | None, delivery: Delivery, spool: Spool) -> None:
        self._reading, self._delivery, self._spool = reading, delivery, spool

    def until_over(self, stop: Stop, watch: Watcher) -> None:
        """Return when nothing works any more, or soon after a stop was requested."""
        progress = Progress(self._reading, self._delivery.lanes, self._spool)
        deadline: float | None = None
        try:
            while not self._over() and (deadline is None or time.monotonic() < deadline):
                self._delivery.wait(POLL_SECONDS)
                self._delivery.watch()
                if stop.error is not None and deadline is None:
                    deadline = time.monotonic() + STOP_SECONDS
                    self._end(stop.error)
                if refusal := self._delivery.refusal:
                    self._end(refusal)
                if self._delivery.hopeless and self._reading is not None:
                    self._reading.stop(SinkError("every sink has failed; nobody is left to read for"))
                watch(progress)
            if stop.error is not None:
                self._delivery.wind_up(0.0, stop.error)
        except BaseException as error:
            self._end(error)
            if self._reading is not None:
                self._reading.join(STOP_SECONDS)
            self._delivery.wind_up(STOP_SECONDS, error)
            raise

    def _over(self) -> bool:
        return self._delivery.finished and (self._reading is None or self._reading.done)

    def _end(self, error: BaseException) -> None:
        if self._reading is not None:
            self._reading.stop(error)
        self._spool.cancel(error)
