"""The progress display: shown on a terminal, absent in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from crdbexport.cli.logs import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from crdbexport.cluster.extractor import WalkCounts
    from crdbexport.report import ConcurrencyCounts
    from crdbexport.sinks.findings import Tally
    from crdbexport.supervision import Progress, Watcher


@contextmanager
def showing(*, wanted: bool) -> Iterator[Watcher | None]:
    """A watcher that draws on standard error, or none."""
    if not wanted:
        yield None
        return
    with _bars() as bars:
        yield _Display(bars)


@contextmanager
def showing_check(*, wanted: bool) -> Iterator[Callable[[Tally], None] | None]:
    """The same for a check of a published directory."""
    if not wanted:
        yield None
        return
    with _bars() as bars:
        task = bars.add_task("checking", total=None, told="")

        def show(tally: Tally) -> None:
            told = f"{tally.files:,} files, {tally.rows:,} records, {tally.size_bytes:,} bytes"
            bars.update(task, total=tally.runs_listed, completed=tally.runs, told=told)

        yield show


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
    )
    return Bars(*columns, console=Console(stderr=True), transient=True)


class _Display:
    """Databases and tables done, requests a second, retries and the time left; each sink's lag."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._reading = bars.add_task("reading", total=None, told="connecting")
        self._sinks: dict[str, TaskID] = {}
        self._began, self._sent_before = time.monotonic(), 0

    def __call__(self, progress: Progress) -> None:
        if progress.reading is not None:
            self._show_reading(progress)
        batches = len(progress.spool.batches)
        for lane in progress.lanes:
            name = lane.sink.name
            if name not in self._sinks:
                self._sinks[name] = self._bars.add_task(one_line(name), total=None, told="")
            behind = batches - lane.batches_done
            told = lane.status or (f"{behind} batches behind" if behind else "up to date")
            self._bars.update(self._sinks[name], total=batches or None, completed=lane.batches_done, told=told)

    def _show_reading(self, progress: Progress) -> None:
        reading = progress.reading
        assert reading is not None  # noqa: S101 (the caller looked)
        walk, requests = reading.walk, reading.requests
        share = reading.refresh.share
        if share is not None:
            # Waiting for the cluster tells nothing of how fast it answers.
            self._began, self._sent_before = time.monotonic(), requests.total
            self._bars.update(self._reading, told=f"refreshing the cluster's statistics {100 * share:.0f} %")
            return
        rate = (requests.total - self._sent_before) / max(time.monotonic() - self._began, 0.1)
        left = _time_left(walk.tables_done, _expected(walk), rate)
        told = (
            f"{walk.databases_done}/{walk.databases_listed} databases, {walk.tables_done}/{walk.tables_listed} tables, "
            f"{rate:.0f} requests/s{_at_a_time(requests.concurrency)}, {requests.retried} retries{left}"
        )
        self._bars.update(self._reading, total=walk.tables_listed or None, completed=walk.tables_done, told=told)


def _at_a_time(limit: ConcurrencyCounts | None) -> str:
    return f" ({limit.last} of {limit.ceiling} at a time)" if limit else ""


def _expected(walk: WalkCounts) -> float:
    """How many tables the cluster seems to have, by those of the databases listed so far."""
    if walk.databases_done >= walk.databases_listed:
        return walk.tables_listed
    return walk.tables_listed / max(walk.databases_done, 1) * walk.databases_listed


def _time_left(done: int, expected: float, rate: float) -> str:
    if not done or not rate:
        return ""
    seconds = int(max(0.0, expected - done) / rate)
    return f", about {seconds // 60}:{seconds % 60:02d} left"
