from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from crdbexport import (
    Artifact,
    Batch,
    Outcome,
    Receipt,
    Run,
    Sink,
    SinkError,
)
from crdbexport.errors import PluginError, SnapshotKeptError
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import SinkPluginManager

PATIENCE_SECONDS = 5.0
FAILURES: tuple[BaseException, ...] = (
    RuntimeError("no"),
    SystemExit(0),
    KeyboardInterrupt("no"),
    asyncio.CancelledError("no"),
    GeneratorExit("no"),
    StopIteration("no"),
)
ALL_BATCHES = [["ann", "bob"], ["cid"], ["dan"]]


def failing(telling: Any, method: str, error: BaseException) -> type[Sink]:
    """A telling sink that raises in one of its methods, after it has told of the call."""

    def fail(self: Any) -> None:
        self.told.append(method)
        raise error

    return type("Failing", (telling,), {method: fail})


def test_a_sink_is_checked_opened_written_in_order_and_committed(deliver: Any, telling: Any) -> None:
    lane = deliver(telling)

    assert telling.told == ["preflight", "open", *ALL_BATCHES, "commit"]
    assert (lane.status, lane.error, lane.batches_done) == ("committed", None, 3)
    assert lane.accepted == {"database_grants": 4}


def test_all_calls_come_on_one_thread_that_is_the_sinks_own(deliver: Any) -> None:
    threads: list[threading.Thread] = []

    class Noting(Sink):
        def preflight(self) -> None:
            threads.append(threading.current_thread())

        open = write = commit = preflight

    deliver(Noting, name="one")
    deliver(Noting, name="two")

    one, two = threads[:6], threads[6:]
    assert len(two) == 6
    assert [len(set(one)), len(set(two))] == [1, 1]
    assert one[0] is not two[0]
    assert one[0].name == "crdbexport-sink-one"
    assert threading.current_thread() not in threads


def test_a_sink_names_only_the_arguments_that_it_wants(deliver: Any, run: Run, outcome: Outcome) -> None:
    seen: list[Any] = []

    class Some(Sink):
        def preflight(self, run: Run) -> None:
            seen.append(run)

        def write(self, run: Run, batch: Batch) -> None:
            seen.append((run, batch.sequence))

        def commit(self, outcome: Outcome) -> None:
            seen.append(outcome)

    assert deliver(Some).status == "committed"
    assert seen == [run, (run, 0), (run, 1), (run, 2), outcome]


def test_a_sink_with_write_alone_is_enough(deliver: Any) -> None:
    class Least(Sink):
        def write(self, batch: Batch) -> None: ...

    assert deliver(Least).status == "committed"


def test_an_argument_that_does_not_exist_is_refused_with_the_names_of_sink_and_method(telling: Any) -> None:
    class Wrong(telling):  # type: ignore[misc]
        def write(self, batsh: Batch) -> None: ...

    with pytest.raises(PluginError) as raised:
        SinkPluginManager(Wrong(Wrong.Config()), "lake (foo 1.0)")

    message = str(raised.value)
    assert message.startswith("sink lake (foo 1.0): ")
    assert "write" in message
    assert "batsh" in message
    assert "\n" not in message


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("preflight", ["preflight"]),
        ("open", ["preflight", "open"]),
        ("write", ["preflight", "open", "write"]),
        ("commit", ["preflight", "open", *ALL_BATCHES, "commit"]),
    ],
    ids=["preflight", "open", "write", "commit"],
)
def test_whatever_a_sink_raises_wherever_it_is_that_sinks_failure(
    deliver: Any, telling: Any, method: str, told: list[Any], error: BaseException
) -> None:
    lane = deliver(failing(telling, method, error))

    assert (lane.status, lane.error) == ("failed", error)
    assert telling.told == [*told, ("abort", type(error).__name__)]
    assert lane.receipt == Receipt()


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_an_abort_that_fails_changes_nothing_and_is_logged(
    deliver: Any, telling: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Twice(failing(telling, "write", SinkError("the first"))):  # type: ignore[misc]
        def abort(self) -> None:
            raise error

    lane = deliver(Twice)

    assert lane.status == "failed"
    assert str(lane.error) == "the first"
    assert f"sink mine: abort failed: {type(error).__name__}" in caplog.text


def test_what_commit_answers_is_the_receipt(deliver: Any, telling: Any) -> None:
    receipt = Receipt((Artifact("there", rows=4),), 12)

    class Receipting(telling):  # type: ignore[misc]
        def commit(self) -> Receipt:
            return receipt

    assert deliver(Receipting).receipt == receipt
    assert deliver(telling).receipt == Receipt()


def test_a_kept_snapshot_is_no_failure_of_the_sink(deliver: Any, telling: Any) -> None:
    lane = deliver(failing(telling, "commit", SnapshotKeptError("a complete one is there")))

    assert lane.status == "aborted"
    assert telling.told[-1] == ("abort", "SnapshotKeptError")


def test_a_run_that_ends_before_its_first_batch_never_opens_the_sink(
    make_lane: Any, telling: Any, spool: Spool
) -> None:
    lane = make_lane(telling, spool=spool)
    lane.check()
    lane.begin(lambda: Outcome(True, (), {}, {}))
    spool.cancel(SinkError("over"))

    assert lane.ended.wait(PATIENCE_SECONDS)
    assert telling.told == ["preflight", ("abort", "SinkError")]
    assert lane.status == "aborted"


def test_a_run_without_records_is_opened_and_committed_all_the_same(deliver: Any, telling: Any, spool: Spool) -> None:
    spool.seal()

    assert deliver(telling, spool=spool).status == "committed"
    assert telling.told == ["preflight", "open", "commit"]


def test_nothing_is_committed_before_the_run_is_read_to_its_end(
    make_lane: Any, telling: Any, outcome: Outcome, spool: Spool, grants: Any, wait_until: Any
) -> None:
    lane = make_lane(telling, spool=spool)
    lane.check()
    lane.begin(lambda: outcome)
    spool.append("database_grants", grants("ann"))
    wait_until(lambda: telling.told[-1] == ["ann"])
    assert not lane.ended.is_set()

    spool.cancel(SinkError("the cluster is gone"))

    assert lane.ended.wait(PATIENCE_SECONDS)
    assert telling.told == ["preflight", "open", ["ann"], ("abort", "SinkError")]


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("preflight", ["preflight", "late", ("abort", "LaneCutOffError")]),
        ("open", ["preflight", "open", "late", ("abort", "LaneCutOffError")]),
        ("write", ["preflight", "open", "write", "late", ("abort", "LaneCutOffError")]),
        ("commit", ["preflight", "open", *ALL_BATCHES, "commit", "late"]),
    ],
    ids=["preflight", "open", "write", "commit"],
)
def test_a_sink_that_was_cut_off_and_comes_back_does_not_go_on(
    make_lane: Any, telling: Any, gate: threading.Event, wait_until: Any, method: str, told: list[Any]
) -> None:
    def hang(self: Any) -> None:
        telling.told.append(method)
        gate.wait(PATIENCE_SECONDS)
        telling.told.append("late")

    lane = make_lane(type("Hanging", (telling,), {method: hang}))
    lane.check()
    lane.begin(lambda: Outcome(True, (), {}, {}))
    wait_until(lambda: telling.told[-1:] == [method])
    error = SinkError("too long")

    lane.cut_off(error)
    assert (lane.status, lane.error, lane.hung) == ("failed", error, True)

    gate.set()
    wait_until(lambda: not lane.hung)
    wait_until(lambda: telling.told == told)
    assert (lane.status, lane.error) == ("failed", error)
    assert lane.receipt == Receipt()


def test_a_call_is_overdue_only_while_it_lasts(
    make_lane: Any, telling: Any, gate: threading.Event, wait_until: Any
) -> None:
    class Hanging(telling):  # type: ignore[misc]
        def preflight(self) -> None:
            super().preflight()
            gate.wait(PATIENCE_SECONDS)

    lane = make_lane(Hanging, timeout_seconds=0.02)
    assert not lane.overdue()
    lane.check()
    wait_until(lane.overdue)

    gate.set()
    assert lane.checked.wait(PATIENCE_SECONDS)
    wait_until(lambda: not lane.overdue())
    assert not lane.hung
