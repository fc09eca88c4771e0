"""Sinks around a sink: they fail it, kill it, stop it or watch it at a chosen call, and are driven as any other."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from crdbexport.errors import RecordRefusedError, SinkBusyError, SinkError
from crdbexport.plugin_manager import SinkPluginManager
from crdbexport.sinks.base import Batch, Outcome, Receipt, Run, Sink

# Homes of calls that change nothing outside of the interpreter.
PURE = frozenset({"builtins", "collections", "datetime", "itertools", "re", "sys", "time", "_sre", "_stat", "_thread"})
_IMPORTING = importlib._bootstrap._find_and_load.__code__  # type: ignore[attr-defined]


class WrappedSink(Sink):
    """Passes every call on to a sink, with the arguments that it names; `raised` keeps what came back as errors."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink.config)
        self.sink = sink
        self.calls: Counter[str] = Counter()
        self.raised: list[tuple[str, BaseException]] = []
        self._hooks: Any = SinkPluginManager(sink, "wrapped").hook

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        """One call of the sink; `self.calls[method]` counts it already."""
        return call(**arguments)

    def preflight(self, run: Run) -> None:
        self._passed("preflight", run=run)

    def open(self, run: Run) -> None:
        self._passed("open", run=run)

    def write(self, batch: Batch, run: Run) -> None:
        self._passed("write", batch=batch, run=run)

    def commit(self, run: Run, outcome: Outcome) -> Receipt | None:
        receipt: Receipt | None = self._passed("commit", run=run, outcome=outcome)
        return receipt

    def abort(self, run: Run, error: BaseException) -> None:
        self._passed("abort", run=run, error=error)

    def shown_target(self) -> str:
        return self.sink.shown_target()

    def secrets(self) -> Iterable[str]:
        return self.sink.secrets()

    def directories(self) -> Iterable[Path]:
        return self.sink.directories()

    def _passed(self, method: str, **arguments: Any) -> Any:
        self.calls[method] += 1
        try:
            return self.around(method, getattr(self._hooks, method), **arguments)
        except BaseException as error:
            self.raised.append((method, error))
            raise


class FailingSink(WrappedSink):
    """Fails chosen calls of a sink: `FailingSink(sink, {"write": 3, "commit": 1})` the third write and first commit.

    The call fails before the sink hears of it; with `after` once the sink has done it, as an answer that is lost.
    """

    def __init__(
        self, sink: Sink, fail: Mapping[str, int], *, error: BaseException | None = None, after: bool = False
    ) -> None:
        super().__init__(sink)
        self._fail, self._error, self._after = fail, error, after

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if self.calls[method] != self._fail.get(method):
            return call(**arguments)
        if self._after:
            call(**arguments)
        raise self._error or SinkError(f"call {self.calls[method]} of `{method}` was made to fail")


class KilledSink(WrappedSink):
    """Kills the process at a chosen call, before the sink hears of it, or `after` the sink has done it."""

    def __init__(self, sink: Sink, method: str, number: int = 1, *, after: bool = False) -> None:
        super().__init__(sink)
        self._at, self._after = (method, number), after

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        doomed = self._at == (method, self.calls[method])
        if doomed and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(**arguments)
        if doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


class KilledInCommit(WrappedSink):
    """Kills the process within `commit`, just before its call number `at` out of Python, such as to the system.

    `seen` counts these calls; with `at` 0 nothing is killed. Calls of imports do not count: a library that is imported
    as late as in the commit makes hundreds, none of which is to the target.
    """

    def __init__(self, sink: Sink, at: int = 0) -> None:
        super().__init__(sink)
        self._at = at
        self._imports = 0
        self.seen = 0

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if method != "commit":
            return call(**arguments)
        sys.setprofile(self._profile)
        try:
            return call(**arguments)
        finally:
            sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, callee: Any) -> None:
        if frame.f_code is _IMPORTING:
            self._imports += {"call": 1, "return": -1}.get(event, 0)
        elif event == "c_call" and not self._imports and _reaches_out(callee):
            self.seen += 1
            if self.seen == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def _reaches_out(callee: Any) -> bool:
    """Whether a call leaves the interpreter's own values: to files, the system, a driver."""
    home = getattr(callee, "__module__", None) or type(getattr(callee, "__self__", None)).__module__
    return home not in PURE


class StoppedInWrite(WrappedSink):
    """Holds the `number`th write back until `go_on` is set; `reached` tells that it is held."""

    def __init__(self, sink: Sink, number: int) -> None:
        super().__init__(sink)
        self._number = number
        self.reached, self.go_on = threading.Event(), threading.Event()

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if (method, self.calls[method]) == ("write", self._number):
            self.reached.set()
            self.go_on.wait()
        return call(**arguments)


class DelayedSink(WrappedSink):
    """Lets the second batch be long in coming."""

    def __init__(self, sink: Sink, seconds: float) -> None:
        super().__init__(sink)
        self._seconds = seconds

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if (method, self.calls[method]) == ("write", 2):
            time.sleep(self._seconds)
        return call(**arguments)


class AbortedTwice(WrappedSink):
    """Aborts the sink twice."""

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if method == "abort":
            call(**arguments)
        return call(**arguments)


class HalvedSink(WrappedSink):
    """Has the lane write the first batch in halves, as it does to find a record that is refused."""

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if (method, self.calls[method]) == ("write", 1):
            raise RecordRefusedError([], "some record, it does not know which")
        return call(**arguments)


class InterruptedSink(WrappedSink):
    """Lets reading the rows of the second batch fail half-way, once; `interrupted` tells if it came to that."""

    interrupted = False

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if (method, self.calls[method]) == ("write", 2):
            batch: Batch = arguments["batch"]
            arguments["batch"] = _BreakingBatch(**vars(batch), broken=self._note)
        return call(**arguments)

    def _note(self) -> None:
        self.interrupted = True


@dataclass(frozen=True)
class _BreakingBatch(Batch):
    broken: Callable[[], None]

    def rows(self) -> list[dict[str, Any]]:
        return _BreakingRows(super().rows(), self.broken)


class _BreakingRows(list[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]], broken: Callable[[], None]) -> None:
        super().__init__(rows)
        self._broken = broken

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self) // 2):
            yield self[number]
        self._broken()
        raise SinkBusyError("interrupted half-way through the rows", retry_after=0.0)
