"""Several sinks at once: what one of them does never becomes another one's trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from crdbexport import Batch, Outcome, RunReport, Sink, SinkError, SinkRefusedError
from crdbexport.errors import PluginError, PreflightError
from crdbexport.pipeline.delivery import Delivery

PATIENCE_SECONDS = 5.0


@pytest.fixture
def hanging(telling: Any, gate: threading.Event) -> Callable[..., type[Sink]]:
    """Makes sinks that hang in one of their calls until the test is over."""

    def made(method: str, *, failing: str = "") -> type[Sink]:
        def hang(self: Any) -> None:
            gate.wait(PATIENCE_SECONDS)

        def fail(self: Any) -> None:
            raise SinkError("the first trouble")

        methods = {method: hang, **({failing: fail} if failing else {})}
        return type("Hanging", (telling,), methods)

    return made


@pytest.mark.slow
@pytest.mark.parametrize("method", ["open", "write", "commit"])
def test_a_sink_that_hangs_is_cut_off_after_its_timeout_and_the_others_finish(
    export: Any, url: str, offering: Any, hanging: Any, method: str
) -> None:
    class Other(Sink):
        def write(self, batch: Batch) -> None: ...

    report: RunReport = export(
        url,
        sinks={"stuck": {"type": "hanging", "timeout_seconds": 0.5}, "fine": {"type": "other"}},
        call=offering(hanging=hanging(method), other=Other),
    )

    stuck, fine = report.sinks
    assert (report.status, report.exit_code) == ("incomplete", 3)
    assert (stuck.status, fine.status) == ("failed", "committed")
    assert stuck.error == (
        f"no end of `{method}` within 0.5 s; see to the target, or raise --sink-option stuck.timeout_seconds"
    )
    assert fine.streams["tables"].delivered == 2


@pytest.mark.slow
def test_a_sink_that_hangs_in_its_preflight_keeps_the_run_from_beginning(
    export: Any, url: str, app: Any, offering: Any, hanging: Any
) -> None:
    with pytest.raises(PreflightError, match=r"^sink stuck: no end of `preflight` within 0\.5 s") as raised:
        export(
            url,
            sinks={"stuck": {"type": "hanging", "timeout_seconds": 0.5}},
            call=offering(hanging=hanging("preflight")),
        )

    assert raised.value.exit_code == 5
    assert app.hits.total() == 0


@pytest.mark.slow
def test_a_sink_that_fails_and_then_hangs_in_its_abort_is_told_with_its_first_trouble(
    export: Any, url: str, offering: Any, hanging: Any
) -> None:
    report: RunReport = export(
        url,
        sinks={"stuck": {"type": "hanging", "timeout_seconds": 0.5}},
        call=offering(hanging=hanging("abort", failing="write")),
    )

    assert (report.status, report.exit_code) == ("failed", 5)
    assert report.sinks[0].error == "the first trouble"


def test_a_slow_sink_holds_up_nobody(export: Any, url: str, offering: Any) -> None:
    fast_is_done = threading.Event()

    class Slow(Sink):
        def write(self, batch: Batch) -> None:
            assert fast_is_done.wait(PATIENCE_SECONDS)

    class Fast(Sink):
        def write(self, batch: Batch) -> None: ...

        def commit(self) -> None:
            fast_is_done.set()

    report: RunReport = export(
        url,
        sinks={"slow": {"type": "slow"}, "fast": {"type": "fast"}},
        call=offering(slow=Slow, fast=Fast),
    )

    assert [sink.status for sink in report.sinks] == ["committed", "committed"]


def test_a_sink_that_still_has_its_thread_is_flagged_as_hung(
    make_lane: Any, telling: Any, hanging: Any, gate: threading.Event, wait_until: Any
) -> None:
    delivery = Delivery([make_lane(hanging("open"), timeout_seconds=0.02), make_lane(telling, name="fine")])
    delivery.preflight()
    delivery.begin(lambda: Outcome(True, (), {}, {}))
    assert not delivery.hung

    def watched() -> bool:
        delivery.watch()
        return delivery.finished

    wait_until(watched)
    assert delivery.hung
    assert [lane.status for lane in delivery.lanes] == ["failed", "committed"]
    assert not delivery.hopeless

    gate.set()
    wait_until(lambda: not delivery.hung)


def test_a_run_without_a_working_sink_is_hopeless(make_lane: Any, telling: Any) -> None:
    delivery = Delivery([make_lane(telling), make_lane(telling, name="other")])
    delivery.lanes[0].cut_off(SinkError("no"))
    assert not delivery.hopeless

    delivery.lanes[1].cut_off(SinkError("no"))
    assert delivery.hopeless
    assert not Delivery([]).hopeless


@pytest.mark.parametrize(
    ("error", "kind", "exit_code", "message"),
    [
        (SinkRefusedError("wrong password"), PreflightError, 4, "sink mine: wrong password"),
        (SinkError("not now"), PreflightError, 5, "sink mine: not now"),
        (RuntimeError("a\nb"), PluginError, 2, "sink mine: RuntimeError: a b (plugin plugin 1.0)"),
        (SystemExit(0), PluginError, 2, "sink mine: SystemExit: 0 (plugin plugin 1.0)"),
        (KeyboardInterrupt(), PluginError, 2, "sink mine: KeyboardInterrupt:  (plugin plugin 1.0)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_refusal_in_preflight_is_raised_with_the_exit_code_of_its_cause(
    make_lane: Any, telling: Any, error: BaseException, kind: type[Any], exit_code: int, message: str
) -> None:
    def fail(self: Any) -> None:
        raise error

    delivery = Delivery([make_lane(type("Refusing", (telling,), {"preflight": fail}))])

    with pytest.raises(kind) as raised:
        delivery.preflight()
    assert (str(raised.value), raised.value.exit_code) == (message, exit_code)


def test_when_one_sink_refuses_the_others_are_aborted_before_the_refusal_is_told(make_lane: Any, telling: Any) -> None:
    class Refusing(Sink):
        def preflight(self) -> None:
            raise SinkRefusedError("no")

        def write(self, batch: Batch) -> None: ...

    class Thorough(telling):  # type: ignore[misc]
        def abort(self) -> None:
            time.sleep(0.1)
            self.told.append("cleaned up")

    delivery = Delivery([make_lane(Thorough, name="thorough"), make_lane(Refusing)])

    with pytest.raises(PreflightError):
        delivery.preflight()

    assert telling.told == ["preflight", "cleaned up"]
    assert delivery.finished


def test_sinks_that_were_only_checked_are_aborted_when_they_are_dismissed(make_lane: Any, telling: Any) -> None:
    delivery = Delivery([make_lane(telling)])
    delivery.preflight()

    delivery.dismiss()

    assert telling.told == ["preflight", ("abort", "SinkError")]
    assert delivery.finished


def test_a_run_that_is_stopped_during_preflight_ends_with_the_reason_of_the_stop(
    make_lane: Any, hanging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdbexport.pipeline.delivery.DISMISS_SECONDS", 0.05)
    delivery = Delivery([make_lane(hanging("preflight"))])
    reason = SinkError("stopped")

    with pytest.raises(SinkError, match="stopped"):
        delivery.preflight(lambda: reason)
    assert delivery.finished


def test_winding_up_lets_lanes_end_by_themselves_and_cuts_off_the_rest(
    make_lane: Any, telling: Any, hanging: Any
) -> None:
    quick, stuck = make_lane(telling, name="quick"), make_lane(hanging("open"))
    delivery = Delivery([stuck, quick])
    delivery.preflight()
    delivery.begin(lambda: Outcome(True, (), {}, {}))
    error = SinkError("over")

    delivery.wind_up(0.1, error)

    assert (quick.status, quick.error) == ("committed", None)
    assert (stuck.status, stuck.error) == ("failed", error)
