"""`crdbexport.export` as a function: from any thread, inside a running loop, several at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from crdbexport import Batch, RunReport, Sink
from crdbexport.sandbox.app import Sandbox
from crdbexport.supervision import Progress

Export = Callable[..., RunReport]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def handlers() -> list[Any]:
    return [signal.getsignal(each) for each in SIGNALS]


def test_a_run_changes_no_signal_handlers(export: Export, url: str, offering: Any, telling: Any) -> None:
    before = handlers()
    seen: list[Any] = []

    def watch(progress: Progress) -> None:
        seen.append(handlers())

    report = export(url, sinks={"mine": {"type": "fine"}}, call={**offering(fine=telling), "watch": watch})

    assert report.exit_code == 0
    assert seen
    assert all(each == before for each in seen)
    assert handlers() == before


def test_a_run_works_inside_a_running_event_loop(export: Export, url: str, offering: Any, telling: Any) -> None:
    async def main() -> RunReport:
        return export(url, sinks={"mine": {"type": "fine"}}, call=offering(fine=telling))

    assert asyncio.run(main()).exit_code == 0
    assert telling.told[-1] == "commit"


def test_a_run_works_in_a_thread_beside_a_running_event_loop(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    async def main() -> RunReport:
        return await asyncio.to_thread(export, url, sinks={"mine": {"type": "fine"}}, call=offering(fine=telling))

    assert asyncio.run(main()).exit_code == 0


def test_a_run_works_on_a_thread_that_is_not_the_main_one_and_leaves_it_free(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    before = handlers()
    reports: list[RunReport] = []
    thread = threading.Thread(
        target=lambda: reports.append(export(url, sinks={"mine": {"type": "fine"}}, call=offering(fine=telling)))
    )
    thread.start()
    thread.join(10)

    assert [report.exit_code for report in reports] == [0]
    assert handlers() == before


def test_several_runs_in_parallel_threads_do_not_mix(export: Export, url: str, app: Sandbox, offering: Any) -> None:
    class Gathering(Sink):
        seen: ClassVar[dict[tuple[str, str], set[tuple[str, str]]]] = {}

        def write(self, batch: Batch, run: Any) -> None:
            told = self.seen.setdefault((run.cluster, run.run_id), set())
            told |= {(row["cluster"], row["run_id"]) for row in batch.rows()}

    def one(number: int) -> RunReport:
        return export(
            url,
            cluster=f"c{number % 2}",
            run_id=f"r{number // 2}",
            sinks={"mine": {"type": "gathering"}},
            call=offering(gathering=Gathering),
        )

    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(one, range(4)))

    assert [report.exit_code for report in reports] == [0] * 4
    names = {(f"c{number % 2}", f"r{number // 2}") for number in range(4)}
    assert Gathering.seen == {name: {name} for name in names}
    assert app.logins == app.logouts == 4


def test_a_run_leaves_no_thread_behind(export: Export, url: str, offering: Any, telling: Any) -> None:
    before = set(threading.enumerate())

    export(url, sinks={"one": {"type": "fine"}, "two": {"type": "fine"}}, call=offering(fine=telling))

    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(1)
    assert not [thread.name for thread in left if thread.is_alive()]


def test_the_progress_can_be_watched(export: Export, url: str, offering: Any, telling: Any) -> None:
    seen: list[tuple[int, int, list[str]]] = []

    def watch(progress: Progress) -> None:
        assert progress.reading is not None
        names = [lane.sink.name for lane in progress.lanes]
        seen.append((progress.reading.requests.total, len(progress.spool.batches), names))

    export(url, sinks={"mine": {"type": "fine"}}, call={**offering(fine=telling), "watch": watch})

    assert seen[-1] == (9, 6, ["mine"])
