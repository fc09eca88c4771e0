"""Safety where the process dies: the same run afterwards is whole, and there once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, check
from crdbexport.testing.children import ChildEnd
from crdbexport.testing.delivery import Fault
from crdbexport.testing.faults import KilledInCommit, KilledSink
from crdbexport.testing.feed import Feed
from crdbexport.testing.harness import Harness
from crdbexport.testing.samples import sample_run

FEW_STREAMS = ("databases", "tables")


@check("safety")
def crash_while_writing(h: Harness) -> None:
    """A process that is killed between two batches leaves nothing; the same run then is whole, and there once."""
    run = sample_run()
    _kill(h, run, partial(KilledSink, method="write", number=4))
    if h.capabilities.transactional:
        h.must_hold_nothing_of(run, "died while it wrote")
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


@check("safety")
def crash_before_commit(h: Harness) -> None:
    """A process that is killed before it commits leaves nothing; the same run then is whole, and there once."""
    run = sample_run()
    _kill(h, run, partial(KilledSink, method="commit"))
    if h.capabilities.transactional:
        h.must_hold_nothing_of(run, "died before its commit")
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


@check("safety")
def crash_in_commit(h: Harness) -> None:
    """A process that is killed at any point of its commit leaves whole streams or nothing; the same run then is whole,
    and there once.
    """
    for there, dead in _killed_in_commit(h):
        if h.capabilities.transactional:
            there.must_hold_whole_or_nothing(dead, "after a death in the commit")
        there.must_hold(there.deliver(dead.run), repeats=not h.capabilities.idempotent)


@check("safety")
def crash_while_replacing(h: Harness) -> None:
    """A process that is killed at any point of the commit of a later run leaves that run whole, or the earlier one."""
    earlier = sample_run("r0", streams=FEW_STREAMS)
    for there, dead in _killed_in_commit(h, earlier):
        first = there.feed(earlier)  # Never begun: only to compare with.
        if h.capabilities.transactional:
            there.must_hold_one_whole(first, dead)
        there.must_hold(first, there.deliver(dead.run), repeats=not h.capabilities.idempotent)


@check("safety")
def crash_after_commit(h: Harness) -> None:
    """A run that was committed just before its process was killed is there, and once when it is delivered again."""
    run = sample_run()
    dead = _kill(h, run, partial(KilledSink, method="commit", after=True))
    h.must_hold(dead, repeats=not h.capabilities.idempotent)
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


def _kill(h: Harness, run: Run, fault: Fault) -> Feed:
    """Deliver the run in a process that the sink kills."""
    feed = h.feed(run)
    end = h.deliver_apart(feed, fault)
    if not end.killed:
        raise CheckFailedError(f"the run ended before its process could be killed: {end.told}")
    return feed


def _killed_in_commit(h: Harness, earlier: Run | None = None) -> Iterator[tuple[Harness, Feed]]:
    """The same run on targets of their own, each killed at another point of its commit.

    A commit that takes fewer calls than when they were counted lives on.
    """
    for at in _points(_calls_in_commit(h, earlier), h.kit.crash_points):
        with h.elsewhere(f"killed at {at}") as there:
            dead = _ready(there, earlier)
            _must_be_killed_or_commit(there.deliver_apart(dead, partial(KilledInCommit, at=at)))
            yield there, dead


def _calls_in_commit(h: Harness, earlier: Run | None) -> int:
    """At how many points a commit can be killed."""
    with h.elsewhere("counting") as there:
        end = there.deliver_apart(_ready(there, earlier), KilledInCommit)
        _must_be_killed_or_commit(end)
        return int(end.answer["calls"])


def _must_be_killed_or_commit(end: ChildEnd) -> None:
    if not end.killed and end.answer["status"] != "committed":
        raise CheckFailedError(f"the run was not committed: {end.answer['error']}")


def _ready(h: Harness, earlier: Run | None) -> Feed:
    if earlier is not None:
        h.deliver(earlier)
    return h.feed(sample_run(streams=FEW_STREAMS))


def _points(calls: int, points: int) -> list[int]:
    """So many of the calls from 2 to the last, both included; before the first one, the commit has not begun."""
    later = range(2, calls + 1)
    return sorted({later[(len(later) - 1) * number // (points - 1)] for number in range(points)}) if later else []


CHECKS = (
    crash_while_writing,
    crash_before_commit,
    crash_in_commit,
    crash_while_replacing,
    crash_after_commit,
)
