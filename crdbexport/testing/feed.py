"""One run on its way to a sink, through a spool and a lane as in an export."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from crdbexport.errors import SinkError
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.lane import Lane, LaneCutOffError, LaneSink, described
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import SinkPluginManager
from crdbexport.selection import Coverage, Selection
from crdbexport.sinks.base import Outcome, Run, Sink
from crdbexport.testing.check import CheckFailedError


class Feed:
    """A run, its batches, and the lane that brings them to the sink. Nothing happens before `begin`."""

    def __init__(
        self,
        run: Run,
        batches: Sequence[tuple[str, pa.RecordBatch]],
        sink: Sink,
        directory: Path,
        *,
        patience: float,
        outcome: Outcome | None = None,
    ) -> None:
        self.run, self.batches, self.sink, self.directory = run, batches, sink, directory
        self._patience = patience
        self.spool = Spool(directory / "spool")
        self._outcome = outcome or outcome_of(run, batches)
        self._letters = DeadLetters(directory / "dead_letters.jsonl", run.sink_name)
        lane_sink = LaneSink(run.sink_name, "conformance", "", "", sink, SinkPluginManager(sink, "conformance").hook)
        self.lane = Lane(lane_sink, run, self.spool, self._letters, Observers(_Nobody()))
        self._thread: threading.Thread | None = None
        for stream, data in batches:
            self.spool.append(stream, data)

    def check(self) -> Feed:
        """Run the preflight alone."""
        before = set(threading.enumerate())
        self.lane.check()
        self._thread = next((each for each in threading.enumerate() if each not in before and _is_lane(each)), None)
        if not self.lane.checked.wait(self._patience):
            self._give_up()
        return self

    def begin(self, may_commit: Callable[[], bool] = lambda: True, *, seal: bool = True) -> Feed:
        """Let the batches flow; unless `seal`, more may be appended to the spool."""
        self.check()
        if seal:
            self.spool.seal()
        self.lane.begin(lambda: self._outcome, may_commit)
        return self

    def wait(self) -> Feed:
        """Wait until the lane is over and its thread gone; a sink that takes too long fails the check."""
        if not self.lane.ended.wait(self._patience):
            self._give_up()
        if self._thread is not None:
            self._thread.join(self._patience)
        return self

    @property
    def status(self) -> str:
        return self.lane.status or "under way"

    @property
    def told(self) -> str:
        """The lane's error in one line."""
        return described(self.lane.error) if self.lane.error else ""

    @property
    def refused_ids(self) -> set[str]:
        return set(self._letters.record_ids()) if self._letters.counts else set()

    def must_commit(self) -> None:
        if self.status != "committed":
            raise CheckFailedError(f"the run was not committed: {self.told}") from self.lane.error

    def accepted(self, stream: str) -> list[Mapping[str, Any]]:
        """The rows of a stream that the sink has taken."""
        refused = self.refused_ids
        rows = (row for name, data in self.batches if name == stream for row in data.to_pylist())
        return [row for row in rows if row["record_id"] not in refused]

    def _give_up(self) -> None:
        calling = self.lane.calling
        self.lane.cut_off(LaneCutOffError(f"`{calling}` took too long"))
        self.spool.cancel(SinkError("the check is over"))
        raise CheckFailedError(f"`{calling}` of the sink did not come back within {self._patience:g} s")


def outcome_of(run: Run, batches: Sequence[tuple[str, pa.RecordBatch]], coverage: Coverage | None = None) -> Outcome:
    """The outcome of a complete run over the whole cluster, unless `coverage` says otherwise."""
    rows = Counter(dict.fromkeys(run.streams, 0))
    for stream, data in batches:
        rows[stream] += data.num_rows
    return Outcome(True, (), dict.fromkeys(run.streams, coverage or Coverage(Selection())), rows)


class _Nobody:
    def observers(self, hook: str) -> list[tuple[Any, Callable[..., Any]]]:
        return []


def _is_lane(thread: threading.Thread) -> bool:
    return thread.name.startswith("crdbexport-sink-")
