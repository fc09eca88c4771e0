"""Safety where the process dies or the disk is full: the same run afterwards is whole, and there once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, NotApplicableError, check
from crdbexport.testing.children import ChildEnd, in_child
from crdbexport.testing.delivery import Delivery, Fault, no_fault
from crdbexport.testing.faults import KilledInCommit, KilledSink
from crdbexport.testing.feed import Feed
from crdbexport.testing.harness import Batches, Harness
from crdbexport.testing.samples import records, sample_run

IMPORT_SECONDS = 10.0  # Besides the patience for the run itself: every process imports the sink's library anew.
FEW_STREAMS = ("databases", "tables")
ROOM_BYTES = (65_536, 4_096, 0)
BIG_BATCHES, BIG_ROWS, BIG_VALUE_BYTES = 10, 2, 20_000


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


@check("safety")
def disk_full(h: Harness) -> None:
    """A disk without room fails the run and leaves nothing; once there is room, the same run is whole."""
    if not h.capabilities.files:
        if list(h.sink().directories()):
            raise CheckFailedError("files=False is declared, and yet the sink names directories of its own")
        raise NotApplicableError("files=False is declared")
    feeds: list[Feed] = []
    failed = 0
    for room in ROOM_BYTES:
        run = sample_run(cluster=f"room {room}")
        feed = h.feed(run, _big(run))
        if _status_with_little_room(h, feed, room) == "committed":
            h.must_hold(*feeds, feed)
        else:
            failed += 1
            if h.capabilities.transactional:
                h.must_hold_nothing_of(run, f"had room for {room} bytes a file")
        feeds.append(h.deliver(run, _big(run)))
        h.must_hold(*feeds, repeats=not h.capabilities.idempotent)
    if not failed:
        raise CheckFailedError("the sink commits where no file can grow; declare files=False if it writes none here")


def _kill(h: Harness, run: Run, fault: Fault) -> Feed:
    """Deliver the run in a process that the sink kills."""
    feed = h.feed(run)
    end = _delivered(h, feed, fault)
    if not end.killed:
        raise CheckFailedError(f"the run ended before its process could be killed: {_outcome(end)}")
    return feed


def _delivered(h: Harness, feed: Feed, fault: Fault = no_fault, *, room: int | None = None) -> ChildEnd:
    """Deliver what the feed holds, in a process of its own. The feed, which is not begun, is there to compare with."""
    delivery = Delivery(
        type(feed.sink), feed.sink.config, feed.run, feed.batches, feed.directory / "child", h.patience, fault, room
    )
    return in_child(delivery, h.patience + IMPORT_SECONDS)


def _outcome(end: ChildEnd) -> str:
    return ": ".join(filter(None, (end.answer["status"], end.answer["error"])))


def _killed_in_commit(h: Harness, earlier: Run | None = None) -> Iterator[tuple[Harness, Feed]]:
    """The same run on targets of their own, each killed at another point of its commit.

    A commit that takes fewer calls than when they were counted lives on.
    """
    for at in _points(_calls_in_commit(h, earlier), h.kit.crash_points):
        with h.elsewhere(f"killed at {at}") as there:
            dead = _ready(there, earlier)
            _must_be_killed_or_commit(_delivered(there, dead, partial(KilledInCommit, at=at)))
            yield there, dead


def _calls_in_commit(h: Harness, earlier: Run | None) -> int:
    """At how many points a commit can be killed."""
    with h.elsewhere("counting") as there:
        end = _delivered(there, _ready(there, earlier), KilledInCommit)
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


def _status_with_little_room(h: Harness, feed: Feed, room: int) -> str:
    try:
        end = _delivered(h, feed, room=room)
    except CheckFailedError as failure:
        raise CheckFailedError(f"with room for {room} bytes a file: {failure}") from failure.__cause__
    if end.killed:
        raise CheckFailedError(f"with room for {room} bytes a file: the process was killed")
    return str(end.answer["status"])


def _big(run: Run) -> Batches:
    """Records that take more room than there is, also compressed."""
    noise = random.Random(run.cluster)  # noqa: S311 (it hides nothing)
    return [
        (
            "tables",
            records(
                "tables",
                BIG_ROWS,
                run=run,
                first=number * BIG_ROWS,
                create_statement=noise.randbytes(BIG_VALUE_BYTES).hex(),
            ),
        )
        for number in range(BIG_BATCHES)
    ]


CHECKS = (
    crash_while_writing,
    crash_before_commit,
    crash_in_commit,
    crash_while_replacing,
    crash_after_commit,
    disk_full,
)
