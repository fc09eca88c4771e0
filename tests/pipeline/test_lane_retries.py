"""What a lane does when a sink refuses records for good, or cannot take a batch now."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crdbexport import Batch, Outcome, RecordRefusedError, Sink, SinkBusyError, SinkError, hookimpl
from crdbexport.pipeline import writing
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import Plugins

PATIENCE_SECONDS = 5.0
TWO_THOUSAND = [f"u{number:04d}" for number in range(2_000)]
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
    monkeypatch.setattr(writing, "BUSY_BASE_SECONDS", 0.001)
    kind = busy(telling, 2, retry_after)

    lane = deliver(kind)

    assert kind.calls == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert telling.told == ["preflight", "open", *ALL_BATCHES, "commit"]
    assert lane.status == "committed"


@pytest.mark.slow
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


def unable_to_tell(telling: Any, *poison: str) -> type[Sink]:
    """A sink that refuses every batch with one of these grantees in it, and cannot tell which; `writes` counts."""

    class Unable(telling):  # type: ignore[misc]
        writes: ClassVar[list[int]] = []
        taken: ClassVar[list[str]] = []

        def write(self, batch: Batch) -> None:
            grantees = batch.data.column("grantee").to_pylist()
            self.writes.append(len(grantees))
            if not poison or set(poison) & set(grantees):
                raise RecordRefusedError([], "does not fit")
            self.taken.extend(grantees)

    return Unable


@pytest.fixture
def two_thousand(tmp_path: Path, envelope: Envelope) -> Spool:
    """A sealed spool of one batch of 2,000 records: u0000 to u1999."""
    spool = Spool(tmp_path / "two_thousand")
    [(stream, data)] = Batcher(envelope).add("database_grants", [("bank", each, "ALL") for each in TWO_THOUSAND])
    spool.append(stream, data)
    spool.seal()
    return spool


def letters_of(lane: Any) -> list[str]:
    return [json.loads(line)["record"]["grantee"] for line in lane.dead_letters.path.read_text().splitlines()]


@pytest.mark.parametrize("poison", ["u0000", "u0777", "u1000", "u1999"])
def test_one_record_among_two_thousand_is_found_by_halves(
    deliver: Any, telling: Any, two_thousand: Spool, poison: str
) -> None:
    kind: Any = unable_to_tell(telling, poison)

    lane = deliver(kind, spool=two_thousand)

    assert lane.status == "committed"
    assert letters_of(lane) == [poison]
    assert (lane.accepted["database_grants"], lane.dead_letters.counts["database_grants"]) == (1_999, 1)
    assert kind.taken == sorted(kind.taken)
    assert len(kind.taken) == 1_999
    assert len(kind.writes) <= 2 * math.ceil(math.log2(2_000)) + 1


def test_several_records_are_found_each_by_its_own_halves(deliver: Any, telling: Any, two_thousand: Spool) -> None:
    poison = ["u0001", "u0002", "u1000", "u1500"]
    kind: Any = unable_to_tell(telling, *poison)

    lane = deliver(kind, spool=two_thousand)

    assert letters_of(lane) == poison
    assert kind.taken == [each for each in TWO_THOUSAND if each not in poison]
    assert len(kind.writes) <= len(poison) * 2 * math.ceil(math.log2(2_000))


def test_a_sink_that_refuses_everything_without_telling_what_ends_all_the_same(
    deliver: Any, telling: Any, tmp_path: Path, grants: Any
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append("database_grants", grants(*(f"u{number}" for number in range(64))))
    spool.seal()
    kind: Any = unable_to_tell(telling)

    lane = deliver(kind, spool=spool)

    assert (lane.status, lane.accepted["database_grants"]) == ("committed", 0)
    assert letters_of(lane) == [f"u{number}" for number in range(64)]
    assert len(kind.writes) == 2 * 64 - 1


def test_a_sink_may_tell_what_it_refuses_once_the_part_is_small_enough(
    deliver: Any, telling: Any, two_thousand: Spool
) -> None:
    class Vague(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            refused = [row["record_id"] for row in batch.rows() if row["grantee"] in ("u0003", "u0004")]
            if refused:
                raise RecordRefusedError(refused if batch.data.num_rows < 10 else [], "no")

    lane = deliver(Vague, spool=two_thousand)

    assert letters_of(lane) == ["u0003", "u0004"]
    assert lane.accepted["database_grants"] == 1_998


def test_a_busy_sink_is_waited_for_while_halves_are_tried(
    deliver: Any, telling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BUSY_BASE_SECONDS", 0.001)
    calls = itertools.count()

    class Busy(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            if next(calls) % 2 == 0:
                raise SinkBusyError
            super().write(batch)
            if "bob" in batch.data.column("grantee").to_pylist():
                raise RecordRefusedError([], "no bob")

    lane = deliver(Busy)

    assert telling.told == ["preflight", "open", ["ann", "bob"], ["ann"], ["bob"], ["cid"], ["dan"], "commit"]
    assert letters_of(lane) == ["bob"]


def test_observers_hear_of_the_parts_that_were_taken(deliver: Any, telling: Any) -> None:
    heard: list[tuple[int, list[str]]] = []

    class Observer:
        @hookimpl
        def crdbexport_batch_delivered(self, batch: Batch) -> None:
            heard.append((batch.sequence, batch.data.column("grantee").to_pylist()))

    plugins = Plugins()
    plugins.add(Observer(), "observer")
    observers = Observers(plugins)
    deliver(unable_to_tell(telling, "ann", "cid"), observers=observers)
    observers.close()

    assert heard == [(0, ["bob"]), (2, ["dan"])]
