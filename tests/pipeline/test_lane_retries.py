"""What a lane does when a sink refuses records for good, or cannot take a batch now."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

import pytest

from crdbexport import Batch, Outcome, RecordRefusedError, Sink, SinkBusyError, SinkError, hookimpl
from crdbexport.pipeline import lane as lane_module
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import Plugins

PATIENCE_SECONDS = 5.0
ALL_BATCHES = [["ann", "bob"], ["cid"], ["dan"]]


def refusing(telling: Any, *grantees: str, rest_written: bool = False) -> type[Sink]:
    """A telling sink that refuses the records of these grantees for good."""

    class Refusing(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            super().write(batch)
            refused = [row["record_id"] for row in batch.rows() if row["grantee"] in grantees]
            if refused:
                raise RecordRefusedError(refused, "too long", rest_written=rest_written)

    return Refusing


def test_refused_records_become_dead_letters_and_the_rest_is_written_again(deliver: Any, telling: Any) -> None:
    lane = deliver(refusing(telling, "ann", "cid"))

    assert telling.told == ["preflight", "open", ["ann", "bob"], ["bob"], ["cid"], ["dan"], "commit"]
    assert lane.status == "committed"
    assert lane.accepted == {"database_grants": 2}
    assert lane.dead_letters.counts == {"database_grants": 2}
    letters = [json.loads(line) for line in lane.dead_letters.path.read_text().splitlines()]
    assert [(each["record"]["grantee"], each["reason"]) for each in letters] == [
        ("ann", "too long"),
        ("cid", "too long"),
    ]


def test_a_batch_whose_rest_is_written_already_is_not_written_again(deliver: Any, telling: Any) -> None:
    lane = deliver(refusing(telling, "ann", rest_written=True))

    assert telling.told == ["preflight", "open", *ALL_BATCHES, "commit"]
    assert (lane.accepted["database_grants"], lane.dead_letters.counts["database_grants"]) == (3, 1)


def test_records_may_be_refused_one_by_one(deliver: Any, telling: Any) -> None:
    class OneByOne(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            super().write(batch)
            raise RecordRefusedError([batch.rows()[0]["record_id"]], "no")

    lane = deliver(OneByOne)

    assert telling.told == ["preflight", "open", ["ann", "bob"], ["bob"], ["cid"], ["dan"], "commit"]
    assert lane.status == "committed"
    assert (lane.accepted["database_grants"], lane.dead_letters.counts["database_grants"]) == (0, 4)


def test_refusing_records_that_are_not_in_the_batch_fails_instead_of_looping(deliver: Any, telling: Any) -> None:
    class Confused(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            super().write(batch)
            raise RecordRefusedError(["of another batch"], "no")

    lane = deliver(Confused)

    assert lane.status == "failed"
    assert "not in the batch" in str(lane.error)
    assert telling.told == ["preflight", "open", ["ann", "bob"], ("abort", "ValueError")]


def test_the_dead_letters_of_an_earlier_attempt_are_not_told_twice(deliver: Any, telling: Any) -> None:
    deliver(refusing(telling, "ann", "bob"))
    lane = deliver(refusing(telling, "ann"))

    (letter,) = map(json.loads, lane.dead_letters.path.read_text().splitlines())
    assert letter["record"]["grantee"] == "ann"
    assert not deliver(telling).dead_letters.path.exists()


def busy(telling: Any, times: int, retry_after: float | None) -> Any:
    """A telling sink that is busy so many times at each batch; `calls` holds the batches' sequences."""

    class Busy(telling):  # type: ignore[misc]
        calls: ClassVar[list[int]] = []

        def write(self, batch: Batch) -> None:
            self.calls.append(batch.sequence)
            if self.calls.count(batch.sequence) <= times:
                raise SinkBusyError("come back", retry_after=retry_after)
            super().write(batch)

    return Busy


@pytest.mark.parametrize("retry_after", [0.0, 0.01, -1.0, None], ids=str)
def test_a_busy_sink_gets_the_same_batch_again(
    deliver: Any, telling: Any, monkeypatch: pytest.MonkeyPatch, retry_after: float | None
) -> None:
    monkeypatch.setattr(lane_module, "BUSY_BASE_SECONDS", 0.001)
    kind = busy(telling, 2, retry_after)

    lane = deliver(kind)

    assert kind.calls == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert telling.told == ["preflight", "open", *ALL_BATCHES, "commit"]
    assert lane.status == "committed"


def test_the_wait_is_the_one_that_the_sink_asks_for(deliver: Any, telling: Any) -> None:
    began = time.monotonic()
    deliver(busy(telling, 1, 0.05))

    assert time.monotonic() - began >= 3 * 0.05


def test_a_sink_that_stays_busy_is_given_up_after_its_timeout(deliver: Any, telling: Any) -> None:
    kind = busy(telling, 1_000_000, 0.01)

    lane = deliver(kind, timeout_seconds=0.1)

    assert lane.status == "failed"
    assert str(lane.error) == "busy for longer than 0.1 s: come back"
    assert len(kind.calls) > 1
    assert telling.told == ["preflight", "open", ("abort", "SinkError")]


def test_a_wait_longer_than_the_timeout_is_not_begun(deliver: Any, telling: Any) -> None:
    kind = busy(telling, 1, 3_600)

    assert deliver(kind, timeout_seconds=60).status == "failed"
    assert kind.calls == [0]


def test_a_wait_ends_when_the_run_does(make_lane: Any, telling: Any, filled_spool: Spool, wait_until: Any) -> None:
    kind = busy(telling, 1_000_000, 200)
    lane = make_lane(kind)
    lane.check()
    lane.begin(lambda: Outcome(True, (), {}, {}))
    wait_until(lambda: kind.calls == [0])

    filled_spool.cancel(SinkError("over"))

    assert lane.ended.wait(PATIENCE_SECONDS)
    assert (lane.status, str(lane.error)) == ("aborted", "over")


def test_observers_hear_of_every_batch_that_was_taken(deliver: Any, telling: Any) -> None:
    heard: list[tuple[str, int, list[str]]] = []

    class Observer:
        @hookimpl
        def crdbexport_batch_delivered(self, sink_name: str, batch: Batch) -> None:
            heard.append((sink_name, batch.sequence, batch.data.column("grantee").to_pylist()))

    plugins = Plugins()
    plugins.add(Observer(), "observer")
    observers = Observers(plugins)
    deliver(refusing(telling, "ann", "cid"), observers=observers)
    observers.close()

    assert heard == [("mine", 0, ["bob"]), ("mine", 2, ["dan"])]
