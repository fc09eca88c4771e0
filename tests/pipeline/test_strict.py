"""A strict run publishes everything, or nothing at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crdbexport import Batch, RecordRefusedError, RunReport, Sink, SinkError
from crdbexport.pipeline.delivery import Delivery
from crdbexport.sandbox.app import Sandbox

Export = Callable[..., RunReport]
PATIENCE_SECONDS = 5.0


class Picky(Sink):
    """Refuses the tables named `users` for good, as long as it is `picky`."""

    picky: ClassVar[bool] = True
    told: ClassVar[list[str]] = []

    def write(self, batch: Batch) -> None:
        refused = [row["record_id"] for row in batch.rows() if row.get("table_name") == "users"]
        if self.picky and batch.stream == "tables" and refused:
            raise RecordRefusedError(refused, "too long")

    def commit(self) -> None:
        self.told.append("commit")

    def abort(self, error: BaseException) -> None:
        self.told.append(f"abort: {error}")


@pytest.fixture
def picky() -> type[Picky]:
    class Fresh(Picky):
        told: ClassVar[list[str]] = []

    return Fresh


def published(tmp_path: Path) -> list[Path]:
    places = ("lake", "lines")
    files = [path for place in places for path in (tmp_path / place).rglob("*") if path.is_file()]
    return [path for path in files if "_staging" not in path.parts]


REFUSAL = "refused records for good, and --strict is given: too long"


def test_one_refused_record_keeps_every_sink_from_publishing(
    export: Export, url: str, offering: Any, telling: Any, picky: Any, tmp_path: Path
) -> None:
    sinks = {
        "lake": {"type": "parquet", "target": str(tmp_path / "lake")},
        "lines": {"type": "jsonl", "target": str(tmp_path / "lines")},
        "fine": {"type": "fine"},
        "picky": {"type": "picky"},
    }

    report = export(url, sinks=sinks, strict=True, call=offering(fine=telling, picky=picky))

    assert (report.status, report.exit_code) == ("failed", 4)
    assert f"sink picky failed: {REFUSAL}" in (report.error or "") or report.error == f"sink picky {REFUSAL}"
    assert {sink.name: sink.status for sink in report.sinks} == {
        "lake": "aborted",
        "lines": "aborted",
        "fine": "aborted",
        "picky": "failed",
    }
    assert published(tmp_path) == []
    assert "commit" not in telling.told
    assert picky.told == [f"abort: {REFUSAL}"]
    assert all(counts.delivered == counts.dead_lettered == 0 for s in report.sinks for counts in s.streams.values())


@pytest.mark.slow
def test_those_that_have_to_give_up_are_told_whose_refusal_it_is(
    export: Export, url: str, offering: Any, telling: Any, picky: Any
) -> None:
    sinks = {"fine": {"type": "fine"}, "picky": {"type": "picky"}}
    report = export(url, sinks=sinks, strict=True, call=offering(fine=telling, picky=picky))
    assert [sink.error for sink in report.sinks] == [f"sink picky {REFUSAL}", REFUSAL]


def test_the_only_sink_that_refuses_is_exit_4(export: Export, url: str, offering: Any, picky: Any) -> None:
    report = export(url, sinks={"picky": {"type": "picky"}}, strict=True, call=offering(picky=picky))
    assert (report.status, report.exit_code, report.error) == ("failed", 4, f"sink picky failed: {REFUSAL}")


@pytest.mark.slow
def test_what_is_read_is_kept_and_published_by_the_same_command_without_strict(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, picky: Any
) -> None:
    sinks = {"fine": {"type": "fine"}, "picky": {"type": "picky"}}
    call = offering(fine=telling, picky=picky)
    assert export(url, sinks=sinks, strict=True, call=call).exit_code == 4
    asked = walked(app)

    report = export(url, sinks=sinks, call=call)

    assert (report.exit_code, report.error) == (3, "1 records refused, kept as dead letters")
    assert {sink.status for sink in report.sinks} == {"committed"}
    # A refusal ends the reading; what was in flight then may be asked for again.
    assert walked(app) - asked <= 8


@pytest.mark.slow
def test_a_strict_run_that_nobody_refuses_is_complete(
    export: Export, url: str, offering: Any, telling: Any, picky: Any
) -> None:
    picky.picky = False
    sinks = {"fine": {"type": "fine"}, "picky": {"type": "picky"}}
    report = export(url, sinks=sinks, strict=True, call=offering(fine=telling, picky=picky))
    assert report.exit_code == 0
    assert telling.told[-1] == picky.told[-1] == "commit"


def test_a_sink_that_fails_otherwise_keeps_no_other_from_publishing(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    class Down(Sink):
        def write(self) -> None:
            raise SinkError("the target is down")

    sinks = {"fine": {"type": "fine"}, "down": {"type": "down"}}
    report = export(url, sinks=sinks, strict=True, call=offering(fine=telling, down=Down))
    assert (report.status, report.exit_code) == ("incomplete", 3)
    assert [sink.status for sink in report.sinks] == ["committed", "failed"]


@pytest.mark.slow
def test_a_refusal_counts_for_more_than_what_else_fails(export: Export, url: str, offering: Any, picky: Any) -> None:
    """The one says to run it again, the other that it would not help."""
    down = {"picky"}

    class Down(Sink):
        def write(self) -> None:
            raise SinkError("the target is down")

    class Late(picky):  # type: ignore[misc]
        def open(self) -> None:
            if down:
                raise SinkError("the target is down")

    sinks = {"down": {"type": "down"}, "picky": {"type": "late"}}
    call = offering(down=Down, late=Late)
    assert export(url, sinks=sinks, strict=True, keep_spool=True, call=call).exit_code == 5
    down.clear()

    report = export(url, sinks=sinks, strict=True, call=call)

    assert (report.status, report.exit_code) == ("failed", 4)
    assert [sink.status for sink in report.sinks if sink.name == "picky"] == ["failed"]


def test_a_refusal_after_others_have_committed_in_an_earlier_attempt_takes_nothing_back(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, picky: Any
) -> None:
    class Down(picky):  # type: ignore[misc]
        down: ClassVar[bool] = True

        def open(self) -> None:
            if self.down:
                raise SinkError("the target is down")

    sinks = {"fine": {"type": "fine"}, "picky": {"type": "down"}}
    call = offering(fine=telling, down=Down)
    assert export(url, sinks=sinks, strict=True, call=call).exit_code == 3
    told, asked = list(telling.told), app.hits.total()
    Down.down = False

    report = export(url, sinks=sinks, strict=True, call=call)

    assert (report.status, report.exit_code) == ("incomplete", 3)
    assert [(sink.name, sink.status) for sink in report.sinks] == [("fine", "committed"), ("picky", "failed")]
    assert (telling.told, app.hits.total()) == (told, asked)


@pytest.mark.slow
def test_no_sink_commits_in_the_moment_between_a_refusal_and_its_notice(
    make_lane: Any, telling: Any, grants: Any, gate: threading.Event, outcome: Any, wait_until: Any
) -> None:
    """Without anybody to supervise: a lane that waits for all others must see by itself that one has refused."""

    class Refusing(Sink):
        def write(self, batch: Batch) -> None:
            raise RecordRefusedError([row["record_id"] for row in batch.rows()], "no")

        def abort(self) -> None:
            gate.wait(PATIENCE_SECONDS)

    waiting, refusing = make_lane(telling), make_lane(Refusing, name="refusing", strict=True)
    delivery = Delivery([waiting, refusing])
    delivery.preflight()
    delivery.begin(lambda: outcome, strict=True)
    wait_until(lambda: waiting.written)
    assert not refusing.ended.is_set()

    gate.set()
    assert refusing.ended.wait(PATIENCE_SECONDS)
    assert not waiting.ended.wait(0.15)
    assert "commit" not in telling.told

    refusal = delivery.refusal
    assert str(refusal) == "sink refusing refused records for good, and --strict is given: no"
    waiting._spool.cancel(refusal)
    assert waiting.ended.wait(PATIENCE_SECONDS)
    assert (waiting.status, "commit" in telling.told) == ("aborted", False)


def walked(app: Sandbox) -> int:
    return sum(count for path, count in app.hits.items() if path.startswith("/api/v2/databases"))
