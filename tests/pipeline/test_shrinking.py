"""What a run is measured by: the counts of the last accepted snapshot, kept by cluster and selection."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import pytest

from crdbexport.pipeline import shrinking
from crdbexport.pipeline.shrinking import Baseline, Held, fingerprint, shrunken
from crdbexport.pipeline.state import Extraction, RunRecord
from crdbexport.report import ObjectCounts, RequestCounts, Shrink, StreamCounts

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS: dict[str, Any] = {"stream": ["tables"], "database": [], "exclude_database": [], "transforms": []}

Accept = Callable[..., None]


@pytest.fixture
def baseline(tmp_path: Path) -> Baseline:
    return Baseline(tmp_path, "c1", SETTINGS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clusters" / "c1.json"


def accept(baseline: Baseline, run_id: str = "r1", at: datetime = NOON, now: datetime | None = None, **n: int) -> None:
    """Accepts a snapshot with so many records of each stream."""
    streams = {name: StreamCounts(count) for name, count in n.items()}
    extraction = Extraction(at, "native", streams, RequestCounts(), ObjectCounts(), (), ())
    baseline.accept(RunRecord("c1", run_id, NOON, at, SETTINGS), extraction, now or at)


def told(baseline: Baseline, **n: int) -> list[tuple[str, int, int, str]]:
    """What is said of a reading with so many records of each stream."""
    shrunk = baseline.shrunken({name: StreamCounts(count) for name, count in n.items()})
    return [(each.stream, each.before, each.now, each.since_run_id) for each in shrunk]


@pytest.mark.parametrize(
    ("before", "now", "shrank"),
    [(10, 10, False), (10, 20, False), (10, 5, False), (10, 4, True), (11, 5, True), (1, 0, True), (0, 0, False)],
)
def test_less_than_half_is_a_shrink_and_half_is_none(before: int, now: int, shrank: bool) -> None:
    held = Held(before, "r1", NOON, NOON)

    found = shrunken({"tables": held}, {"tables": StreamCounts(now)})

    assert found == ((Shrink("tables", before, now, "r1"),) if shrank else ())


def test_what_a_transform_filtered_does_not_count(baseline: Baseline) -> None:
    accept(baseline, tables=10)

    assert not baseline.shrunken({"tables": StreamCounts(20, 15)})
    assert baseline.shrunken({"tables": StreamCounts(20, 16)})


def test_a_first_run_is_measured_by_nothing(baseline: Baseline, caplog: pytest.LogCaptureFixture) -> None:
    assert told(baseline, tables=0) == []
    assert caplog.records == []


def test_streams_are_measured_each_by_the_run_that_read_them_last(baseline: Baseline) -> None:
    accept(baseline, "r1", tables=10, columns=100)
    accept(baseline, "r2", NOON + HOUR, tables=8)

    assert told(baseline, tables=3, columns=30) == [("tables", 8, 3, "r2"), ("columns", 100, 30, "r1")]
    assert told(baseline, indexes=0) == []


def test_another_selection_has_counts_of_its_own(tmp_path: Path, baseline: Baseline, file: Path) -> None:
    accept(baseline, tables=100)
    part = Baseline(tmp_path, "c1", {**SETTINGS, "database": ["movr"]})

    assert told(part, tables=1) == []
    accept(part, "r2", tables=4)

    assert told(part, tables=1) == [("tables", 4, 1, "r2")]
    assert told(baseline, tables=1) == [("tables", 100, 1, "r1")]
    assert [path.name for path in file.parent.glob("*.json")] == ["c1.json"]


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"stream": ["columns"]}, True),
        ({"logical_time": "2026-01-31"}, True),
        ({"database": ["b", "a"]}, True),
        ({"database": ["a"]}, False),
        ({"database": [], "exclude_database": ["a", "b"]}, False),
        ({"transforms": [{"type": "filter"}]}, False),
    ],
    ids=str,
)
def test_only_what_decides_which_records_there_are_makes_runs_incomparable(changed: dict[str, Any], same: bool) -> None:
    settings = {**SETTINGS, "database": ["a", "b"]}

    assert (fingerprint({**settings, **changed}) == fingerprint(settings)) is same


def test_clusters_are_kept_apart_whatever_their_names(tmp_path: Path) -> None:
    names = ["c1", "C1", "../c1", "c1/x", "é" * 100]
    for number, name in enumerate(names, 10):
        accept(Baseline(tmp_path, name, SETTINGS), f"of-{number}", tables=number)

    for number, name in enumerate(names, 10):
        assert told(Baseline(tmp_path, name, SETTINGS), tables=0) == [("tables", number, 0, f"of-{number}")]
    assert [path.name for path in tmp_path.iterdir()] == ["clusters"]


def test_a_run_that_was_read_earlier_and_delivered_later_is_not_the_measure(baseline: Baseline) -> None:
    accept(baseline, "tuesday", NOON + HOUR, tables=10)
    accept(baseline, "monday", NOON, now=NOON + 2 * HOUR, tables=100)

    assert told(baseline, tables=4) == [("tables", 10, 4, "tuesday")]


def test_a_clock_that_was_wrong_once_keeps_no_later_run_out(baseline: Baseline) -> None:
    accept(baseline, "of-2040", NOON.replace(year=2040), tables=100)
    accept(baseline, "of-2026", NOON, tables=10)

    assert told(baseline, tables=4) == [("tables", 10, 4, "of-2026")]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 64,
        b'{"cluster": "c1", "selections": {"\xff": {}}}',
        b'{"cluster": "c1", "selections": []}',
        b'{"cluster": "c1", "selections": {}, "format_version": 2}',
    ],
    ids=["empty", "zeros", "not UTF-8", "another shape", "another version"],
)
def test_a_damaged_file_is_warned_about_and_begun_anew(
    baseline: Baseline, file: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    accept(baseline, tables=100)
    file.write_bytes(damage)

    assert told(baseline, tables=10) == []
    [warning] = caplog.records
    assert (warning.levelno, warning.event) == (logging.WARNING, "baseline_unreadable")
    assert str(file) in warning.getMessage()

    accept(baseline, "r2", tables=10)
    assert told(baseline, tables=1) == [("tables", 10, 1, "r2")]
    assert len(caplog.records) == 1


def test_a_time_without_a_zone_is_damage_too(baseline: Baseline, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    accept(baseline, tables=100)
    file.write_text(file.read_text().replace("12:00:00Z", "12:00:00"))

    accept(baseline, "r2", tables=10)

    assert told(baseline, tables=1) == [("tables", 10, 1, "r2")]


def test_a_file_that_cannot_be_written_is_warned_about_and_the_old_counts_stand(
    baseline: Baseline, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accept(baseline, tables=100)
    file.with_suffix(".tmp").mkdir()

    accept(baseline, "r2", tables=10)

    [warning] = caplog.records
    assert (warning.levelno, warning.event) == (logging.WARNING, "baseline_not_kept")
    assert told(baseline, tables=1) == [("tables", 100, 1, "r1")]


def test_a_file_that_cannot_be_read_is_warned_about(
    baseline: Baseline, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir(parents=True)

    assert told(baseline, tables=10) == []
    assert "Is a directory" in caplog.text


def test_a_lock_that_is_held_too_long_costs_the_run_nothing(
    baseline: Baseline, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrinking, "LOCK_TIMEOUT_SECONDS", 0.05)
    accept(baseline, tables=100)

    with filelock.FileLock(file.with_suffix(".lock")):
        accept(baseline, "r2", tables=10)

    assert "later runs are not compared with this one" in caplog.text
    assert told(baseline, tables=10) == [("tables", 100, 10, "r1")]


def test_only_the_owner_may_read_what_is_kept(baseline: Baseline, file: Path) -> None:
    umask = os.umask(0)
    try:
        accept(baseline, tables=100)
    finally:
        os.umask(umask)

    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    assert not file.with_suffix(".tmp").exists()


@pytest.mark.slow
def test_runs_side_by_side_lose_none_of_their_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    selections = [Baseline(tmp_path, "c1", {**SETTINGS, "database": [f"d{number}"]}) for number in range(8)]

    def work(baseline: Baseline) -> None:
        for count in range(1, 6):
            accept(baseline, f"r{count}", NOON + count * HOUR, tables=10 * count)

    threads = [threading.Thread(target=work, args=(each,)) for each in selections]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert caplog.records == []
    assert [told(each, tables=0) for each in selections] == [[("tables", 50, 0, "r5")]] * 8
