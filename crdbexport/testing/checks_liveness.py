"""Liveness: what is committed is there, and every run ends, also one that is stopped."""

from __future__ import annotations

import time

from crdbexport.errors import StoppedError
from crdbexport.testing.check import CheckFailedError, check
from crdbexport.testing.faults import AbortedTwice, DelayedSink, WrappedSink
from crdbexport.testing.harness import Harness
from crdbexport.testing.samples import records, sample_run

SIGTERM = 15
MANY_BATCHES = 250
SLOW_SECONDS = 0.3
STOP_SECONDS = 5.0


@check("liveness")
def one_record_arrives(h: Harness) -> None:
    """A run of a single record is there as soon as it is committed: nothing waits for more."""
    run = sample_run()
    h.must_hold(h.deliver(run, [("databases", records("databases", run=run))]))


@check("liveness")
def empty_run(h: Harness) -> None:
    """A run without a single batch is committed, and a later run of the snapshot is too."""
    empty = h.deliver(sample_run(), [])
    h.must_hold(empty)
    h.must_hold(empty, h.deliver(sample_run("r2")))


@check("liveness")
def many_batches(h: Harness) -> None:
    """A run of many small batches comes to its end in time, and is whole."""
    run = sample_run()
    batches = [("columns", records("columns", run=run, first=number)) for number in range(MANY_BATCHES)]
    h.must_hold(h.deliver(run, batches))


@check("liveness")
def slow_batches(h: Harness) -> None:
    """A run whose next batch is long in coming is committed all the same."""
    run = sample_run()
    h.must_hold(h.deliver(run, sink=DelayedSink(h.sink(), SLOW_SECONDS)))


@check("liveness")
def stops_when_told(h: Harness) -> None:
    """A run that is stopped by a signal ends at once, and leaves nothing."""
    feed = h.feed(sample_run())
    began = time.monotonic()
    h.interrupted(feed, StoppedError(SIGTERM))
    if time.monotonic() - began > min(STOP_SECONDS, h.patience):
        raise CheckFailedError(f"a stopped run took {time.monotonic() - began:.1f} s to end")
    if h.capabilities.transactional:
        h.must_hold_nothing_of(feed.run, "was stopped")


@check("liveness")
def abort_before_open(h: Harness) -> None:
    """A run that is over before its first batch is given up without `open`, and without an error."""
    sink = WrappedSink(h.sink())
    feed = h.feed(sample_run(), sink=sink).check()
    feed.lane.dismiss()
    feed.wait()
    _refuse_errors(sink)
    h.must_hold(h.deliver(sample_run()))


@check("liveness")
def abort_twice(h: Harness) -> None:
    """A sink may be told twice to give up."""
    sink = AbortedTwice(h.sink())
    h.interrupted(h.feed(sample_run(), sink=sink))
    _refuse_errors(sink)


@check("liveness")
def begins_again_after_abort(h: Harness) -> None:
    """A run that was given up can be delivered at once by a fresh sink: no lock or leftover is in its way."""
    run = sample_run()
    h.interrupted(h.feed(run))
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


def _refuse_errors(sink: WrappedSink) -> None:
    for method, error in sink.raised:
        raise CheckFailedError(f"`{method}` raised {type(error).__name__}: {error}") from error


CHECKS = (
    one_record_arrives,
    empty_run,
    many_batches,
    slow_batches,
    stops_when_told,
    abort_before_open,
    abort_twice,
    begins_again_after_abort,
)
