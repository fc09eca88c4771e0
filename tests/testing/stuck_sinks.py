"""Sinks that wait for what does not come, or do not let go, each in one way."""

from __future__ import annotations

import queue
import time

from crdbexport import Batch, Run, SinkError
from crdbexport.errors import ClusterUnavailableError, StoppedError
from tests.testing.good_sinks import GoodSink
from tests.testing.unsafe_sinks import Locking


class WaitsForMore(GoodSink):
    def publish(self) -> None:
        if sum(map(len, self.rows.values())) != 1:
            super().publish()


class NeedsARecord(GoodSink):
    def publish(self) -> None:
        assert max(map(len, self.rows.values())) > 0
        super().publish()


class FillsAQueue(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        self.queue: queue.Queue[Batch] = queue.Queue(200)

    def write(self, batch: Batch) -> None:
        self.queue.put(batch, timeout=10)
        super().write(batch)


class LosesPatience(GoodSink):
    written_at = 0.0

    def write(self, batch: Batch) -> None:
        if self.written_at and time.monotonic() - self.written_at > 0.28:
            raise SinkError("the connection was idle for too long")
        super().write(batch)
        self.written_at = time.monotonic()


class KeepsWhatItHasWhenStopped(GoodSink):
    def abort(self, error: BaseException) -> None:
        if isinstance(error, StoppedError):
            self.publish()


class AbortsOnlyWhatIsOpen(GoodSink):
    def abort(self, error: BaseException) -> None:
        self.rows.clear()


class AbortsOnce(GoodSink):
    aborted = False

    def abort(self, error: BaseException) -> None:
        if self.aborted:
            raise RuntimeError("it is closed already")
        self.aborted = True


class LeavesItsLock(Locking):
    def refuses(self, batches: int) -> bool:
        return batches == -1

    def abort(self, error: BaseException) -> None:
        if isinstance(error, ClusterUnavailableError):
            self.lock.write_text("-1")
        else:
            super().abort(error)
