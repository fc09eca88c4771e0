"""A lane: one sink on a thread of its own, fed from the spool at its own pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crdbexport.errors import CrdbExportError, SinkError, SnapshotKeptError
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spending import Spent
from crdbexport.pipeline.spool import Spool, SpoolCancelledError
from crdbexport.pipeline.writing import BatchWriter
from crdbexport.report import SinkStatus
from crdbexport.sinks.base import Batch, Outcome, Receipt, Run, Sink

POLL_SECONDS = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneSink:
    """A sink as a lane drives it.

    `target` is what may be shown of where it writes; `hooks` calls its methods with the arguments that it names.
    """

    name: str
    type: str
    target: str
    plugin: str
    sink: Sink
    hooks: Any


class LaneCutOffError(SinkError):
    """A call of the sink did not come back in time."""


class Lane:
    """Drives one sink: preflight, open, write for every batch, commit; abort if anything goes wrong.

    All calls happen on the lane's own thread. `status` is None while the lane works. A lane that was cut off stays
    failed whatever its sink does later. A strict lane fails where others set records aside.
    """

    def __init__(
        self,
        sink: LaneSink,
        run: Run,
        spool: Spool,
        dead_letters: DeadLetters,
        observers: Observers,
        *,
        strict: bool = False,
    ) -> None:
        self.sink = sink
        self.dead_letters = dead_letters
        self.batches_done = 0
        self.status: SinkStatus | None = None
        self.error: BaseException | None = None
        self.receipt = Receipt()
        self.spent = Spent()
        self.checked = threading.Event()
        self.ended = threading.Event()
        self._run, self._spool, self._observers = run, spool, observers
        self._writer = BatchWriter(
            write=lambda batch: self._call("write", batch=batch, run=run),
            pause=spool.pause,
            taken=self._tell_taken,
            dead_letters=dead_letters,
            timeout_seconds=sink.sink.config.timeout_seconds,
            strict=strict,
        )
        self.accepted = self._writer.accepted
        self.written = False
        self._outcome: Callable[[], Outcome] | None = None
        self._may_commit: Callable[[], bool] = lambda: True
        self._on_commit: Callable[[Lane], None] = lambda lane: None
        self._begin = threading.Event()
        self._deciding = threading.Lock()
        self._called_at: float | None = None
        self._aborting: BaseException | None = None
        self.calling = ""
        self._thread = threading.Thread(target=self._work, name=f"crdbexport-sink-{sink.name}", daemon=True)

    def check(self) -> None:
        """Start the thread; it runs the preflight and then waits. `checked` is set when the answer is there."""
        self._thread.start()

    def begin(
        self,
        outcome: Callable[[], Outcome],
        may_commit: Callable[[], bool] = lambda: True,
        on_commit: Callable[[Lane], None] = lambda lane: None,
    ) -> None:
        """Let batches flow. `outcome` is asked once the spool is read to its end, then `may_commit` until it holds.

        `on_commit` is called on the lane's thread as soon as the sink has committed.
        """
        self._outcome, self._may_commit, self._on_commit = outcome, may_commit, on_commit
        self._begin.set()

    def dismiss(self) -> None:
        """End a lane that has not begun."""
        self._spool.cancel(SinkError("the run did not begin"))
        self._begin.set()

    @property
    def hung(self) -> bool:
        """Whether the sink still has the lane's thread although the lane is over."""
        return self.ended.is_set() and self._called_at is not None

    def overdue(self) -> bool:
        """Whether the call in progress takes longer than the sink may take."""
        called_at = self._called_at
        limit: float = self.sink.sink.config.timeout_seconds
        return called_at is not None and time.monotonic() - called_at > limit

    def cut_off(self, error: BaseException) -> None:
        """Give the sink up; its thread is left to itself. What it was aborting for stays the cause."""
        self._end("failed", self._aborting or error)

    def _work(self) -> None:
        try:
            self._call("preflight", run=self._run)
            self.checked.set()
            self._begin.wait()
            self._deliver_all()
        except SpoolCancelledError as stopped:
            self._abort(stopped.reason)
            self._end("aborted", stopped.reason)
        except BaseException as error:  # noqa: BLE001 (whatever a plugin raises, SystemExit too, is its own failure)
            self._abort(error)
            self._end("aborted" if isinstance(error, SnapshotKeptError) else "failed", error)
        finally:
            self.checked.set()

    def _deliver_all(self) -> None:
        batches = self._spool.read()
        first = next(batches, None)  # A run that is over before its first batch never opens the sink.
        self.dead_letters.forget()
        self._call("open", run=self._run)
        while first is not None:
            self._writer.deliver(first)
            self.batches_done += 1
            first = next(batches, None)
        assert self._outcome is not None  # noqa: S101 (set before `_begin`)
        outcome = self._outcome()
        self._check_sums(outcome)
        self.written = True
        while not self._may_commit():
            self._spool.pause(POLL_SECONDS)
        receipt = self._call("commit", run=self._run, outcome=outcome)
        self.receipt = receipt if isinstance(receipt, Receipt) else Receipt()
        self._on_commit(self)
        self._end("committed", None)

    def _check_sums(self, outcome: Outcome) -> None:
        for stream, rows in outcome.rows.items():
            taken = self.accepted[stream] + self.dead_letters.counts[stream]
            if taken != rows:
                raise SinkError(f"{taken} of {rows} records of {stream} came out of the spool; give another --run-id")

    def _tell_taken(self, part: Batch) -> None:
        self._observers.tell("crdbexport_batch_delivered", sink_name=self.sink.name, batch=part)

    def _call(self, method: str, **arguments: Any) -> Any:
        self.calling, self._called_at = method, time.monotonic()
        try:
            with self.spent.call(batches=method == "write"):
                return getattr(self.sink.hooks, method)(**arguments)
        finally:
            self._called_at = None
            self._refuse_after_end()

    def _refuse_after_end(self) -> None:
        # A commit that came back late has happened; aborting after it would not undo it.
        if self.ended.is_set() and self.calling not in ("abort", "commit"):
            raise LaneCutOffError("it was cut off")

    def _abort(self, error: BaseException) -> None:
        self._aborting = error
        try:
            self._call("abort", run=self._run, error=error)
        except BaseException as failure:  # noqa: BLE001 (see `_work`)
            log.warning("sink %s: abort failed: %s", self.sink.name, described(failure))

    def _end(self, status: SinkStatus, error: BaseException | None) -> None:
        with self._deciding:
            if self.ended.is_set():
                return
            self.status, self.error = status, error
            self.ended.set()
        log.log(
            # What keeps a run from beginning is told by whoever asked for the run.
            logging.WARNING if status == "failed" and self._begin.is_set() else logging.INFO,
            "sink %s %s%s",
            self.sink.name,
            status,
            f": {described(error)}" if error else "",
            extra={"event": f"sink_{status}", "sink": self.sink.name},
        )


def described(error: BaseException) -> str:
    """The error in one line; a foreign one with its type, for its message alone may say little."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CrdbExportError) else f"{type(error).__name__}: {text}"
