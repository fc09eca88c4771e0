"""Safety where the process dies or the disk is full: the same run afterwards is whole, and there once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

from crdbexport.sinks.base import Run, Sink
from crdbexport.testing.check import CheckFailedError, NotApplicableError, check
from crdbexport.testing.children import in_child, without_room
from crdbexport.testing.faults import KilledInCommit, KilledSink
from crdbexport.testing.feed import Feed
from crdbexport.testing.harness import Batches, Harness
from crdbexport.testing.samples import records, sample_run

FEW_STREAMS = ("databases", "tables")
ROOM_BYTES = (65_536, 4_096, 0)
BIG_BATCHES, BIG_ROWS, BIG_VALUE_BYTES = 10, 2, 20_000


@check("safety")
def crash_while_writing(h: Harness) -> None:
    """A process that is killed between two batches leaves nothing; the same run then is whole, and there once."""
    run = sample_run()
    _kill(h, run, KilledSink(h.sink(), "write", 4))
    if h.capabilities.transactional:
        h.must_hold_nothing_of(run, "died while it wrote")
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


@check("safety")
def crash_before_commit(h: Harness) -> None:
    """A process that is killed before it commits leaves nothing; the same run then is whole, and there once."""
    run = sample_run()
    _kill(h, run, KilledSink(h.sink(), "commit"))
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
    dead = _kill(h, run, KilledSink(h.sink(), "commit", after=True))
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
        if _with_little_room(feed, room, h.patience)["status"] == "committed":
            h.must_hold(*feeds, feed)
        else:
            failed += 1
            if h.capabilities.transactional:
                h.must_hold_nothing_of(run, f"had room for {room} bytes a file")
        feeds.append(h.deliver(run, _big(run)))
        h.must_hold(*feeds, repeats=not h.capabilities.idempotent)
    if not failed:
        raise CheckFailedError("the sink commits where no file can grow; declare files=False if it writes none here")


def _kill(h: Harness, run: Run, sink: Sink) -> Feed:
    """Deliver the run in a process that the sink kills."""
    feed = h.feed(run, sink=sink)
    end = in_child(partial(_ended, feed), h.patience)
    if not end.killed:
        raise CheckFailedError(f"the run ended before its process could be killed: {end.answer}")
    return feed


def _ended(feed: Feed) -> dict[str, Any]:
    feed.begin().wait()
    return {"status": feed.status, "error": feed.told}


def _killed_in_commit(h: Harness, earlier: Run | None = None) -> Iterator[tuple[Harness, Feed]]:
    """The same run on targets of their own, each killed at another point of its commit.

    A commit that takes fewer calls than when they were counted lives on.
    """
    for at in _points(_calls_in_commit(h, earlier), h.kit.crash_points):
        with h.elsewhere(f"killed at {at}") as there:
            dead = _ready(there, earlier, KilledInCommit(there.sink(), at))
            in_child(partial(_ended, dead), h.patience)
            yield there, dead


def _calls_in_commit(h: Harness, earlier: Run | None) -> int:
    """At how many points a commit can be killed; told by the second one, for some libraries are imported late."""
    counts = []
    for name in ("warming up", "counting"):
        with h.elsewhere(name) as there:
            sink = KilledInCommit(there.sink())
            there.committed(_ready(there, earlier, sink).begin().wait())
            counts.append(sink.seen)
    return counts[-1]


def _ready(h: Harness, earlier: Run | None, sink: Sink) -> Feed:
    if earlier is not None:
        h.deliver(earlier)
    return h.feed(sample_run(streams=FEW_STREAMS), sink=sink)


def _points(calls: int, points: int) -> list[int]:
    """So many of the calls from 2 to the last, both included; before the first one, the commit has not begun."""
    later = range(2, calls + 1)
    return sorted({later[(len(later) - 1) * number // (points - 1)] for number in range(points)}) if later else []


def _with_little_room(feed: Feed, room: int, patience: float) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        without_room(room)
        return _ended(feed)

    end = in_child(work, patience)
    if "status" not in end.answer:
        why = end.answer.get("error", "the process was killed")
        raise CheckFailedError(f"with room for {room} bytes a file: {why}")
    return end.answer


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
