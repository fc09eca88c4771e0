"""Safety: nothing half, nothing twice, nothing lost."""

from __future__ import annotations

import threading

import pyarrow as pa

from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, NotApplicableError, check
from crdbexport.testing.checks_crashes import CHECKS as CRASHES
from crdbexport.testing.checks_neighbours import CHECKS as NEIGHBOURS
from crdbexport.testing.checks_scarcity import CHECKS as SCARCITY
from crdbexport.testing.faults import FailingSink, InterruptedSink
from crdbexport.testing.harness import Harness
from crdbexport.testing.samples import later_of, records, sample_run, some_of_everything

MORE_THAN_A_BUFFER = 5_000


@check("safety")
def nothing_before_commit(h: Harness) -> None:
    """Readers see nothing of a run before it commits, unless the sink declares otherwise."""
    gate = threading.Event()
    run = sample_run()
    # More than a file's buffer keeps back by itself.
    many = ("columns", records("columns", MORE_THAN_A_BUFFER, run=run, first=5))
    feed = h.feed(run, [*some_of_everything(run), many]).begin(gate.is_set)
    try:
        h.until(lambda: feed.lane.written or feed.lane.ended.is_set())
        early = _seen_early(h, run)
    finally:
        gate.set()
        feed.wait()
    h.committed(feed)
    if h.capabilities.transactional and early:
        raise CheckFailedError(f"readers see {early} records before the commit")
    if not h.capabilities.transactional and not early:
        raise CheckFailedError("transactional=False is declared, and yet readers see nothing before the commit")
    h.must_hold(feed)


def _seen_early(h: Harness, run: Run) -> int:
    try:
        return h.rows_of(run)
    except Exception as error:
        what = f"what readers find before the commit cannot be read: {type(error).__name__}: {error}"
        raise CheckFailedError(what) from error


@check("safety", needs="transactional")
def abort_leaves_nothing(h: Harness) -> None:
    """A run that is given up after all was written leaves nothing that readers see."""
    feed = h.interrupted(h.feed(sample_run()))
    h.must_hold_nothing_of(feed.run, "was given up")


@check("safety", needs="transactional")
def abort_keeps_what_is_published(h: Harness) -> None:
    """A run that is given up leaves an earlier one of the same snapshot as it is."""
    first = h.deliver(sample_run())
    h.interrupted(h.feed(later_of(first.run)))
    h.must_hold(first)


@check("safety", needs="transactional")
def failed_commit_leaves_nothing(h: Harness) -> None:
    """A commit that fails before it begins leaves nothing, and the same run can be delivered again."""
    run = sample_run()
    failed = h.feed(run, sink=FailingSink(h.sink(), {"commit": 1})).begin().wait()
    if failed.status != "failed":
        raise CheckFailedError(f"the commit failed, and the run is {failed.status}")
    h.must_hold_nothing_of(run, "failed to commit")
    h.must_hold(h.deliver(run))


@check("safety")
def same_run_twice(h: Harness) -> None:
    """The same run again changes nothing, unless the sink declares that it delivers at least once."""
    first = h.deliver(sample_run())
    once = h.rows_of(first.run)
    again = h.deliver(first.run)
    if h.capabilities.idempotent:
        h.must_hold(again)
    elif h.rows_of(first.run) == once:
        raise CheckFailedError("idempotent=False is declared, and yet the same run again changed nothing")


@check("safety")
def lost_acknowledgement(h: Harness) -> None:
    """A run that was committed, but whose answer was lost, is whole and there once after it is delivered again."""
    run = sample_run()
    h.feed(run, sink=FailingSink(h.sink(), {"commit": 1}, after=True)).begin().wait()
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


@check("safety")
def partial_batch(h: Harness) -> None:
    """A batch that fails half-way through its rows, and comes again, is there once."""
    run = sample_run()
    sink = InterruptedSink(h.sink())
    feed = h.feed(run, sink=sink).begin().wait()
    if not sink.interrupted:
        h.must_hold(feed)
        raise NotApplicableError("the sink takes a batch as a whole, and not row by row")
    if feed.status != "committed":
        h.must_hold_nothing_of(run, "failed")
        feed = h.deliver(run)
    h.must_hold(feed, repeats=not h.capabilities.idempotent)


@check("safety")
def poison_record(h: Harness) -> None:
    """A record that is hard to take is refused by name or taken exactly, and the others of its batch are there once."""
    run = sample_run()
    poison = records("table_grants", run=run, first=2, **h.kit.poison)
    around = [records("table_grants", 2, run=run, first=first) for first in (0, 3)]
    rows = pa.Table.from_batches([around[0], poison, around[1]]).combine_chunks().to_batches()
    feed = h.deliver(run, [("table_grants", rows[0])])
    if feed.refused_ids - set(poison.column("record_id").to_pylist()):
        raise CheckFailedError("records beside the poisonous one were refused")
    if h.capabilities.refuses_records and not feed.refused_ids:
        raise CheckFailedError("refuses_records is declared, and yet the record `poison` was not refused")
    h.must_hold(feed)


@check("safety")
def side_by_side(h: Harness) -> None:
    """Two runs that publish at the same time are both whole; a sink that declares otherwise refuses the second."""
    feeds = [h.feed(sample_run(cluster=cluster)) for cluster in ("c1", "c2")]

    def both_written() -> bool:
        return all(each.lane.written or each.lane.ended.is_set() for each in feeds)

    for each in feeds:
        each.begin(both_written)
    committed = [each for each in feeds if each.wait().status == "committed"]
    if h.capabilities.concurrent:
        for each in feeds:
            h.committed(each)
    elif len(committed) != 1:
        raise CheckFailedError(f"concurrent=False is declared, and {len(committed)} of two runs were committed")
    h.must_hold(*committed)


CHECKS = (
    nothing_before_commit,
    abort_leaves_nothing,
    abort_keeps_what_is_published,
    failed_commit_leaves_nothing,
    same_run_twice,
    lost_acknowledgement,
    *CRASHES,
    *SCARCITY,
    partial_batch,
    poison_record,
    side_by_side,
    *NEIGHBOURS,
)
