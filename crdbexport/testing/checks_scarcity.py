"""Safety where something is lacking that a sink may need: room on the disk, or the network."""

from __future__ import annotations

import random

from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, NotApplicableError, check
from crdbexport.testing.children import ChildEnd
from crdbexport.testing.feed import Feed
from crdbexport.testing.harness import Batches, Harness
from crdbexport.testing.offline import can_go_offline
from crdbexport.testing.samples import records, sample_run

ROOM_BYTES = (65_536, 4_096, 0)
BIG_BATCHES, BIG_ROWS, BIG_VALUE_BYTES = 10, 2, 20_000


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


@check("safety")
def without_a_network(h: Harness) -> None:
    """Without a network a run is whole; that of a sink which declares `remote` fails in time and leaves nothing."""
    if not can_go_offline():
        raise NotApplicableError("this platform cannot take the network from a process")
    feed = h.feed(sample_run(), sink=h.sink(h.kit.remote_options))
    end = h.deliver_apart(feed, offline=True)
    if h.capabilities.remote:
        _must_have_failed(h, feed, end)
        feed = h.deliver(feed.run)
    elif end.status != "committed":
        raise CheckFailedError(f"remote is not declared, and without a network the run is {end.told}")
    h.must_hold(feed, repeats=not h.capabilities.idempotent)


def _must_have_failed(h: Harness, feed: Feed, end: ChildEnd) -> None:
    if end.status == "committed":
        raise CheckFailedError(
            "remote is declared, and yet a run is committed without a network; name a target elsewhere in "
            "remote_options, or declare remote=False"
        )
    if h.capabilities.transactional:
        h.must_hold_nothing_of(feed.run, "had no network")


def _status_with_little_room(h: Harness, feed: Feed, room: int) -> str:
    try:
        end = h.deliver_apart(feed, room_bytes=room)
    except CheckFailedError as failure:
        raise CheckFailedError(f"with room for {room} bytes a file: {failure}") from failure.__cause__
    if end.killed:
        raise CheckFailedError(f"with room for {room} bytes a file: the process was killed")
    return end.status


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


CHECKS = (disk_full, without_a_network)
