"""Feeds a sink through a real lane, and compares what readers of its target see. This is what a check works with."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from crdbexport.errors import ClusterUnavailableError
from crdbexport.options import convert
from crdbexport.sinks.base import Outcome, Run, Sink
from crdbexport.testing.check import CheckFailedError
from crdbexport.testing.children import ChildEnd, in_child
from crdbexport.testing.comparing import Rows, difference, of_run
from crdbexport.testing.delivery import Delivery, Fault, no_fault
from crdbexport.testing.feed import Feed
from crdbexport.testing.samples import some_of_everything

if TYPE_CHECKING:
    from crdbexport.testing.conformance import Capabilities, SinkConformance

POLL_SECONDS = 0.005
IMPORT_SECONDS = 10.0  # Besides the patience for the run itself: every process imports the sink's library anew.
Batches = Sequence[tuple[str, pa.RecordBatch]]


class Harness:
    """One check's own target, at `place`, with all that is needed to deliver to it and read it back."""

    def __init__(self, kit: SinkConformance, base: Path) -> None:
        self.kit = kit
        self.base, self.place, self.work = base, base / "place", base / "work"
        self.place.mkdir(parents=True, exist_ok=True)
        self.work.mkdir()
        self._numbers = itertools.count()

    @property
    def capabilities(self) -> Capabilities:
        return self.kit.capabilities

    @property
    def patience(self) -> float:
        return self.kit.patience_seconds

    @contextmanager
    def elsewhere(self, name: str) -> Iterator[Harness]:
        """A harness with another, empty target."""
        there = Harness(self.kit, self.work / "elsewhere" / name)
        with self.kit.serve(there.place):
            yield there

    def sink(self, options: Mapping[str, Any] | None = None) -> Sink:
        """A fresh sink on the target; `options` go over all others."""
        sink = self.kit.make_sink(self.place)
        given = {**self.kit.options, **(options or {})}
        if not given:
            return sink
        settings = {**msgspec.structs.asdict(sink.config), **given}
        return type(sink)(convert(settings, type(sink.config), where="--option"))

    def feed(
        self, run: Run, batches: Batches | None = None, *, sink: Sink | None = None, outcome: Outcome | None = None
    ) -> Feed:
        """A run that is ready to be delivered; by default with some records of every stream."""
        batches = some_of_everything(run) if batches is None else batches
        directory = self.work / str(next(self._numbers))
        return Feed(run, batches, sink or self.sink(), directory, patience=self.patience, outcome=outcome)

    def deliver(
        self, run: Run, batches: Batches | None = None, *, sink: Sink | None = None, outcome: Outcome | None = None
    ) -> Feed:
        """Deliver a run, which must be committed."""
        feed = self.feed(run, batches, sink=sink, outcome=outcome)
        self.committed(feed.begin().wait())
        return feed

    def deliver_apart(
        self, feed: Feed, fault: Fault = no_fault, *, room_bytes: int | None = None, offline: bool = False
    ) -> ChildEnd:
        """Deliver what the feed holds, in a process of its own. The feed is not begun: it is there to compare with."""
        directory = feed.directory / "child"
        kind, config = type(feed.sink), feed.sink.config
        delivery = Delivery(kind, config, feed.run, feed.batches, directory, self.patience, fault, room_bytes, offline)
        return in_child(delivery, self.patience + IMPORT_SECONDS)

    def committed(self, feed: Feed) -> None:
        """Fail unless the feed is committed, with no more records refused than is declared."""
        feed.must_commit()
        if feed.refused_ids and not self.capabilities.refuses_records:
            raise CheckFailedError(f"{len(feed.refused_ids)} records were refused, and refuses_records is not declared")

    def interrupted(self, feed: Feed, error: BaseException | None = None) -> Feed:
        """Let the run be given up once the sink has taken all of its batches, and before it commits."""
        feed.begin(lambda: False)
        self.until(lambda: feed.lane.written or feed.lane.ended.is_set())
        feed.spool.cancel(error or ClusterUnavailableError("the cluster went away"))
        return feed.wait()

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until something holds that another thread brings about."""
        deadline = time.monotonic() + self.patience
        while not met():
            if time.monotonic() > deadline:
                raise CheckFailedError(f"the sink did not go on within {self.patience:g} s")
            time.sleep(POLL_SECONDS)

    def read(self, stream: str) -> Rows:
        return self.kit.read_back(self.place).get(stream, ())

    def rows_of(self, run: Run) -> int:
        """How many records of the run readers see."""
        reading = self.kit.read_back(self.place)
        return sum(len(of_run(reading.get(stream, ()), run.cluster, run.run_id)) for stream in run.streams)

    def must_hold(self, *feeds: Feed, repeats: bool = False) -> None:
        """Fail unless readers see exactly what these deliveries, in their order, leave in a sink of this kind."""
        left = list({self._kept_as(feed.run): feed for feed in feeds}.values())
        reading = self.kit.read_back(self.place)
        for stream, schema in _schemas(feeds).items():
            wanted = [row for feed in left for row in feed.accepted(stream)]
            if told := difference(stream, schema, wanted, reading.get(stream, ()), repeats=repeats):
                raise CheckFailedError(told)

    def must_hold_nothing_of(self, run: Run, when: str) -> None:
        """Fail where readers see a record of the run."""
        if seen := self.rows_of(run):
            raise CheckFailedError(f"readers see {seen} records of a run that {when}")

    def must_hold_whole_or_nothing(self, feed: Feed, when: str) -> None:
        """Fail where readers see a part of what the run has of a stream."""
        reading = self.kit.read_back(self.place)
        for stream, schema in feed.run.streams.items():
            found = of_run(reading.get(stream, ()), feed.run.cluster, feed.run.run_id)
            if found and (told := difference(stream, schema, feed.accepted(stream), found)):
                raise CheckFailedError(f"{when}, readers see a part of the run: {told}")

    def must_hold_one_whole(self, *feeds: Feed) -> None:
        """Fail unless readers see one of these runs whole, in every stream."""
        reading = self.kit.read_back(self.place)
        for stream, schema in _schemas(feeds).items():
            rows = reading.get(stream, ())
            found = [of_run(rows, each.run.cluster, each.run.run_id) for each in feeds]
            pairs = zip(feeds, found, strict=True)
            if all(difference(stream, schema, feed.accepted(stream), seen) for feed, seen in pairs):
                raise CheckFailedError(f"readers see neither the earlier run nor the later one whole in {stream}")

    def other_files(self) -> set[Path]:
        """What lies beside the place."""
        mine = (self.place, self.work)
        return {each for each in self.base.rglob("*") if not any(each.is_relative_to(own) for own in mine)}

    def _kept_as(self, run: Run) -> tuple[Any, ...]:
        """What of two runs is the same for a sink of this kind, so that the later one takes the place."""
        if self.capabilities.append_only:
            return (run.cluster, run.run_id)
        if self.capabilities.latest_only or self.capabilities.upsert:
            return (run.cluster,)
        return (run.cluster, run.logical_time)


def _schemas(feeds: Iterable[Feed]) -> dict[str, pa.Schema]:
    return {stream: schema for feed in feeds for stream, schema in feed.run.streams.items()}
