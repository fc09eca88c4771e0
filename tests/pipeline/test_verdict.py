"""Every combination of what stopped a run, what became of its sinks, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crdbexport import SinkError, SinkRefusedError
from crdbexport.errors import (
    AuthenticationError,
    ClusterUnavailableError,
    PluginError,
    SnapshotKeptError,
    StoppedError,
    StorageError,
)
from crdbexport.pipeline.lane import Lane
from crdbexport.pipeline.verdict import Verdict, unallowed, verdict
from crdbexport.records import Gap
from crdbexport.report import DeliveryCounts, Shrink, SinkReport

COMMITTED, FAILED, REFUSED, KEPT, LETTERS, ABORTED = "committed", "failed", "refused", "kept", "letters", "aborted"
ENDS: dict[str, tuple[Any, BaseException | None, int]] = {
    COMMITTED: ("committed", None, 0),
    FAILED: ("failed", SinkError("down"), 0),
    REFUSED: ("failed", SinkRefusedError("gone"), 0),
    KEPT: ("aborted", SnapshotKeptError("a complete one is there"), 0),
    LETTERS: ("committed", None, 2),
    ABORTED: ("aborted", StoppedError(2), 0),
}
MISSING = Gap(database="bank", part="details", reason="not_found")
FORBIDDEN = Gap(database="bank", part="grants", reason="forbidden")
SLOW = Gap(database="bank", part="tables", reason="timeout")
SHRUNK = (Shrink("tables", 9000, 12, "r1"), Shrink("columns", 80000, 90, "r0"), Shrink("indexes", 7, 0, "r1"))
SHRUNK_TOLD = (
    "tables shrank from 9,000 to 12 records, columns shrank from 80,000 to 90 records, indexes shrank from 7 to 0 "
    'records since run "r1", "r0": did the account lose privileges? '
    "If this is to be expected, add --allow-shrink to the next run"
)


def earlier(dead_lettered: int = 0) -> SinkReport:
    counts = {"tables": DeliveryCounts(3, dead_lettered, 0)}
    return SinkReport("first", "parquet", "/lake", "committed", counts, 10, ())


@pytest.fixture
def lanes(make_lane: Any, telling: Any) -> Callable[..., list[Lane]]:
    """Lanes that have come to the named ends."""

    def ended(*ends: str) -> list[Lane]:
        made = []
        for number, end in enumerate(ends):
            lane = make_lane(telling, name=f"s{number}")
            lane.status, lane.error, letters = ENDS[end]
            lane.dead_letters.counts["tables"] = letters
            made.append(lane)
        return made

    return ended


@pytest.mark.parametrize(
    ("ends", "status", "exit_code"),
    [
        ([COMMITTED], "complete", 0),
        ([COMMITTED, COMMITTED], "complete", 0),
        ([LETTERS], "incomplete", 3),
        ([COMMITTED, LETTERS], "incomplete", 3),
        ([FAILED], "failed", 5),
        ([FAILED, FAILED], "failed", 5),
        ([REFUSED], "failed", 4),
        ([REFUSED, REFUSED], "failed", 4),
        ([REFUSED, FAILED], "failed", 5),
        ([KEPT], "incomplete", 3),
        ([KEPT, KEPT], "incomplete", 3),
        ([KEPT, FAILED], "failed", 5),
        ([KEPT, REFUSED], "failed", 5),
        ([COMMITTED, FAILED], "incomplete", 3),
        ([FAILED, COMMITTED], "incomplete", 3),
        ([COMMITTED, REFUSED], "incomplete", 3),
        ([COMMITTED, KEPT], "incomplete", 3),
        ([LETTERS, FAILED], "incomplete", 3),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_the_sinks_decide_when_all_was_read(lanes: Any, ends: list[str], status: str, exit_code: int) -> None:
    result = verdict(None, lanes(*ends), (), ())

    assert (result.status, result.exit_code) == (status, exit_code)
    assert (result.error is None) == (exit_code == 0)


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        (StoppedError(2), "interrupted", 130),
        (StoppedError(15), "interrupted", 143),
        (ClusterUnavailableError("down"), "failed", 5),
        (StorageError("full"), "failed", 5),
        (AuthenticationError("no"), "failed", 4),
        (PluginError("broken"), "failed", 2),
        (RuntimeError("a bug"), "failed", 1),
        (KeyboardInterrupt(), "failed", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("ends", [[ABORTED], [ABORTED, FAILED], [COMMITTED, ABORTED], []], ids="+".join)
def test_what_ended_the_reading_decides_while_a_sink_lacks_something(
    lanes: Any, ends: list[str], error: BaseException, status: str, exit_code: int
) -> None:
    result = verdict(error, lanes(*ends), (FORBIDDEN,), ())

    assert (result.status, result.exit_code) == (status, exit_code)
    assert result.error


def test_an_end_that_came_after_every_sink_had_committed_takes_nothing_back(lanes: Any) -> None:
    assert verdict(StoppedError(2), lanes(COMMITTED), (), ()) == Verdict("complete", 0)


@pytest.mark.parametrize(
    ("gaps", "allowed", "exit_code"),
    [
        ((), (), 0),
        ((MISSING,), (), 0),
        ((FORBIDDEN,), (), 3),
        ((FORBIDDEN,), ("forbidden",), 0),
        ((FORBIDDEN, SLOW), ("forbidden",), 3),
        ((FORBIDDEN, SLOW), ("forbidden", "timeout"), 0),
        ((MISSING, FORBIDDEN), ("timeout",), 3),
    ],
)
def test_gaps_make_a_run_incomplete_unless_they_are_allowed(
    lanes: Any, gaps: tuple[Gap, ...], allowed: tuple[str, ...], exit_code: int
) -> None:
    result = verdict(None, lanes(COMMITTED), gaps, allowed)

    assert result.exit_code == exit_code
    assert bool(unallowed(gaps, allowed)) == (exit_code == 3)


@pytest.mark.parametrize(
    ("ends", "before", "exit_code"),
    [
        ([COMMITTED], earlier(), 0),
        ([COMMITTED], earlier(dead_lettered=1), 3),
        ([FAILED], earlier(), 3),
        ([REFUSED], earlier(), 3),
        ([KEPT], earlier(), 3),
    ],
    ids=["mended", "letters of before", "fails again", "refuses again", "kept"],
)
def test_a_sink_that_committed_in_an_earlier_attempt_counts(
    lanes: Any, ends: list[str], before: SinkReport, exit_code: int
) -> None:
    assert verdict(None, lanes(*ends), (), (), [before]).exit_code == exit_code


def test_the_error_tells_everything_that_is_wrong_in_one_line(lanes: Any) -> None:
    result = verdict(None, lanes(LETTERS, FAILED), (FORBIDDEN, SLOW, MISSING), ())

    assert result.error == (
        "sink s1 failed: down; 2 records refused, kept as dead letters; "
        "2 gaps that are not allowed (1 forbidden, 1 timeout)"
    )


@pytest.mark.parametrize(
    ("ends", "status", "exit_code", "told"),
    [
        ([COMMITTED], "incomplete", 3, SHRUNK_TOLD),
        ([KEPT], "incomplete", 3, f"sink s0 aborted: a complete one is there; {SHRUNK_TOLD}"),
        ([FAILED], "failed", 5, f"sink s0 failed: down; {SHRUNK_TOLD}"),
        ([COMMITTED, FAILED], "incomplete", 3, f"sink s1 failed: down; {SHRUNK_TOLD}"),
    ],
    ids=["committed", "kept", "failed", "one failed"],
)
def test_a_shrink_makes_a_run_incomplete_and_is_told_whatever_became_of_the_sinks(
    lanes: Any, ends: list[str], status: str, exit_code: int, told: str
) -> None:
    assert verdict(None, lanes(*ends), (), (), (), SHRUNK) == Verdict(status, exit_code, told)
