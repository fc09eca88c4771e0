"""Safety between runs: what stays of each beside the others, and that it lies where it is looked for."""

from __future__ import annotations

import re
from datetime import timedelta

from crdbexport.selection import Coverage, Selection
from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, check
from crdbexport.testing.comparing import difference
from crdbexport.testing.feed import Feed, outcome_of
from crdbexport.testing.harness import Batches, Harness
from crdbexport.testing.samples import DAY, later_of, records, sample_run


@check("safety")
def later_run_of_the_snapshot(h: Harness) -> None:
    """A later run of the same snapshot takes the place of the earlier, or is added, as the sink declares."""
    first = h.deliver(sample_run())
    later = later_of(first.run)
    h.must_hold(first, h.deliver(later, _fewer(later)))


@check("safety")
def other_snapshots(h: Harness) -> None:
    """Runs of other days stay, unless the sink declares that it keeps the latest state only."""
    feeds = [h.deliver(sample_run(f"r{day}", logical_time=DAY + timedelta(days=day))) for day in range(3)]
    h.must_hold(*feeds)


@check("safety")
def a_day_by_itself(h: Harness) -> None:
    """A day can be read without opening any other, if the sink declares `partitioned`; else no receipt names a day's
    own place.
    """
    feeds = [h.deliver(_read_days_later(day)) for day in range(2)]
    if not h.capabilities.partitioned:
        for feed in feeds:
            _refuse_place_of_a_day(feed)
        return
    for feed in feeds:
        _must_hold_alone(h, feed)
    empty = DAY.date() + timedelta(days=9)
    if any(h.kit.read_day(h.place, empty).values()):
        raise CheckFailedError("readers of a day without any run see records")


def _read_days_later(day: int) -> Run:
    """A run that was read when another day had begun."""
    stands_for = DAY + timedelta(days=day)
    return sample_run(f"r{day}", logical_time=stands_for, extracted_at=stands_for + timedelta(days=1, hours=1))


def _refuse_place_of_a_day(feed: Feed) -> None:
    own = re.compile(rf"(?:^|/)[^/=]+={feed.run.logical_time.date()}(?:/|$)")
    for each in feed.lane.receipt.artifacts:
        if own.search(each.location):
            raise CheckFailedError("partitioned is not declared, and yet the receipt names the place of a day")


def _must_hold_alone(h: Harness, feed: Feed) -> None:
    reading = h.kit.read_day(h.place, feed.run.logical_time.date())
    for stream, schema in feed.run.streams.items():
        if told := difference(stream, schema, feed.accepted(stream), reading.get(stream, ())):
            raise CheckFailedError(f"to readers of the day alone: {told}")


@check("safety")
def other_clusters(h: Harness) -> None:
    """Runs of other clusters stay, also where cluster, run id and records have the same names."""
    h.must_hold(*[h.deliver(sample_run(cluster=cluster)) for cluster in ("c1", "c10", "c1.r1")])


@check("safety", needs="upsert")
def uncovered_records_stay(h: Harness) -> None:
    """Records that a run did not look for are not deleted."""
    run = sample_run(streams=["tables"])
    first = h.deliver(run, [("tables", records("tables", 3, run=run))])
    later = later_of(run)
    batches: Batches = [("tables", records("tables", 1, run=later, first=1))]
    nowhere = outcome_of(later, batches, Coverage(Selection(), known=False))
    second = h.deliver(later, batches, outcome=nowhere)
    old = first.accepted("tables")
    wanted = [old[0], *second.accepted("tables"), old[2]]
    if told := difference("tables", run.streams["tables"], wanted, h.read("tables")):
        raise CheckFailedError(told)


@check("safety")
def free_text_names(h: Harness) -> None:
    """A cluster and a run id that are no names of files are kept as they are, and lead nowhere else."""
    beside = h.other_files()
    run = sample_run("../../nightly: *?\n'\"", cluster="../../prod\\..")
    feed = h.deliver(run)
    if strays := h.other_files() - beside:
        raise CheckFailedError(f"something was written outside of the target: {sorted(strays)[0].name}")
    h.must_hold(feed)


@check("safety")
def names_do_not_collide(h: Harness) -> None:
    """Runs whose clusters or ids differ in a sign that file names lack do not overwrite each other."""
    pairs = [("a/b", "r"), ("a_b", "r"), ("a%2Fb", "r"), ("a b", "r"), ("a.b", "c"), ("a", "b.c"), ("A", "b.c")]
    h.must_hold(*[h.deliver(sample_run(run_id, cluster=cluster)) for cluster, run_id in pairs])


def _fewer(run: Run) -> Batches:
    """Less of every stream than a run has by default, and some that is new."""
    return [(stream, records(stream, 2, run=run, first=4)) for stream in run.streams]


CHECKS = (
    later_run_of_the_snapshot,
    other_snapshots,
    a_day_by_itself,
    other_clusters,
    uncovered_records_stay,
    free_text_names,
    names_do_not_collide,
)
