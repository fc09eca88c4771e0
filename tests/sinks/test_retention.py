"""Old snapshots go whole, what belongs to no run goes, and nothing else does, wherever the process dies."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crdbexport.errors import ConfigError, RunHeldError, StorageError
from crdbexport.sinks.jsonl import SUFFIXES
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.retention import expire, sweep
from crdbexport.sinks.strays import run_stem
from crdbexport.sinks.verifying import verify
from tests.sinks.lake_support import (
    DAY,
    SINKS,
    a_run,
    all_files,
    jsonl,
    leftovers,
    manifests,
    parquet,
    promised,
    recover,
    visible,
)
from tests.sinks.retention_support import four_days, orphan, publish_day, script, unfinish

KINDS = pytest.mark.parametrize("kind", SINKS)


def run_ids(lake: Path) -> list[str]:
    return [manifest.run_id for manifest in manifests(lake)]


def assert_clean(lake: Path) -> None:
    assert verify(lake).findings == ()
    assert visible(lake) == promised(lake)
    assert leftovers(lake) == []


def days(lake: Path) -> list[str]:
    return sorted(path.name for path in (lake / "tables").iterdir())


# -- expire


@KINDS
def test_the_newest_snapshots_of_each_cluster_are_kept(tmp_path: Path, kind: str) -> None:
    four_days(tmp_path, kind)
    publish_day(tmp_path, 0, kind=kind, cluster="b")
    removed = expire(Lake(tmp_path), 2)
    assert [(each.cluster, each.run_id) for each in removed] == [("prod", "r0"), ("prod", "r1")]
    assert run_ids(tmp_path) == ["r0", "r2", "r3"]
    assert_clean(tmp_path)


def test_days_that_hold_nothing_any_more_go_too(tmp_path: Path) -> None:
    four_days(tmp_path)
    expire(Lake(tmp_path), 3)
    assert days(tmp_path) == ["date=2026-11-24", "date=2026-11-25", "date=2026-11-26"]


def test_the_newest_are_those_of_logical_time_whenever_they_were_published(tmp_path: Path) -> None:
    for day in (2, 0, 3, 1):
        publish_day(tmp_path, day, run_id=f"z{9 - day}")
    assert [each.logical_time for each in expire(Lake(tmp_path), 2)] == [DAY + timedelta(days=1), DAY]
    assert {each.logical_time for each in manifests(tmp_path)} == {DAY + timedelta(days=2), DAY + timedelta(days=3)}


def test_one_cluster_may_be_named(tmp_path: Path) -> None:
    for cluster in ("a", "a.b"):
        for day in range(3):
            publish_day(tmp_path, day, cluster=cluster)
    assert {each.cluster for each in expire(Lake(tmp_path), 1, cluster="a")} == {"a"}
    assert sorted((each.cluster, each.run_id) for each in manifests(tmp_path)) == [
        ("a", "r2"),
        ("a.b", "r0"),
        ("a.b", "r1"),
        ("a.b", "r2"),
    ]
    assert_clean(tmp_path)


def test_nothing_is_removed_where_there_is_no_more_than_is_kept(tmp_path: Path) -> None:
    four_days(tmp_path)
    before = all_files(tmp_path)
    assert expire(Lake(tmp_path), 4) == []
    assert all_files(tmp_path) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(tmp_path: Path) -> None:
    four_days(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    told = expire(Lake(tmp_path), 1, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert told == expire(Lake(tmp_path), 1)
    assert len(told) == 3


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(tmp_path: Path, keep: int) -> None:
    four_days(tmp_path)
    with pytest.raises(ConfigError, match=f"cannot keep {keep} snapshots of a cluster; keep at least 1"):
        expire(Lake(tmp_path), keep)


def test_what_is_no_lake_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    for remove in (lambda: expire(Lake(tmp_path), 1), lambda: sweep(Lake(tmp_path))):
        with pytest.raises(ConfigError, match="nothing was published here"):
            remove()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_manifest_keeps_everything(tmp_path: Path) -> None:
    four_days(tmp_path)
    (tmp_path / "_manifests/prod.r3.json").write_text("{")
    before = all_files(tmp_path)
    with pytest.raises(ConfigError, match=r"prod\.r3\.json: the manifest is damaged"):
        expire(Lake(tmp_path), 1)
    assert all_files(tmp_path) == before


def test_an_interrupted_publication_is_finished_and_counted_first(tmp_path: Path) -> None:
    four_days(tmp_path)
    unfinish(tmp_path, "prod.r3")
    expire(Lake(tmp_path), 1)
    assert run_ids(tmp_path) == ["r3"]
    assert_clean(tmp_path)


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    four_days(tmp_path)
    sink = jsonl(tmp_path)
    sink.open(run=a_run("open"))
    expire(Lake(tmp_path), 1)
    sweep(Lake(tmp_path))
    assert "prod.open" in leftovers(tmp_path)
    sink.abort()
    assert run_ids(tmp_path) == ["r3"]


@pytest.mark.slow
def test_the_lock_of_the_lake_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four_days(tmp_path)
    before = all_files(tmp_path)
    monkeypatch.setattr("crdbexport.sinks.lake.LOCK_TIMEOUT_SECONDS", 0.1)
    for remove in (lambda: expire(Lake(tmp_path), 1), lambda: sweep(Lake(tmp_path))):
        with Lake(tmp_path).locked(), pytest.raises(RunHeldError, match="has been publishing for"):
            remove()
    assert all_files(tmp_path) == before


def test_a_manifest_leaves_durably_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four_days(tmp_path)
    steps: list[tuple[str, str]] = []
    originals = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(("sync", str(path.relative_to(tmp_path))))
        originals["fsync"](descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append(("rename", str(Path(source).relative_to(tmp_path))))
        originals["replace"](source, target)

    def unlink(path: Path, **others: Any) -> None:
        if not others:  # Those are within a directory that is removed with all it holds.
            steps.append(("remove", str(Path(path).relative_to(tmp_path))))
        originals["unlink"](path, **others)

    for patched in (fsync, replace, unlink):
        monkeypatch.setattr(os, patched.__name__, patched)
    expire(Lake(tmp_path), 3)
    renamed = steps.index(("rename", "_manifests/prod.r0.json"))
    assert ("sync", "_staging") in steps[:renamed]
    removed = steps.index(("remove", "databases/date=2026-11-23/prod.r0.jsonl"))
    assert {("sync", "_staging/expired"), ("sync", "_manifests")} <= set(steps[renamed:removed])
    assert ("sync", "databases/date=2026-11-23") in steps[removed:]


def test_files_that_cannot_be_removed_now_are_removed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    four_days(tmp_path)
    unlink = os.unlink

    def failing(path: Any, **others: Any) -> None:
        if str(path).endswith("prod.r1.jsonl"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, **others)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "crdbexport"):
        patched.setattr(os, "unlink", failing)
        assert len(expire(Lake(tmp_path), 1)) == 3
    assert "the next run to this directory tries again" in caplog.text
    assert {finding.kind for finding in verify(tmp_path).findings} == {"interrupted"}
    recover(tmp_path, "jsonl")
    assert run_ids(tmp_path) == ["r3"]
    assert_clean(tmp_path)


def test_a_disk_that_fails_before_anything_is_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four_days(tmp_path)

    def failing(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "the disk")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing)
        with pytest.raises(StorageError, match="the disk: Input/output error; mend that"):
            expire(Lake(tmp_path), 1)
    assert verify(tmp_path).runs == 4
    sweep(Lake(tmp_path))
    assert_clean(tmp_path)


def assert_promises_kept(lake: Path) -> None:
    """After a crash: no manifest names a missing file, and readers see whole files only."""
    assert {finding.kind for finding in verify(lake).findings} <= {"interrupted"}
    assert promised(lake).items() <= visible(lake).items()


@pytest.mark.slow
@KINDS
def test_killed_at_any_file_operation_expiring_is_finished_by_a_sweep(tmp_path: Path, kind: str) -> None:
    subprocess.run(**script(str(tmp_path), kind, "expire"), check=True)
    lakes = sorted(tmp_path.iterdir())
    assert len(lakes) > 20
    left = []
    for lake in lakes:
        assert_promises_kept(lake)
        sweep(Lake(lake))
        assert_clean(lake)
        left.append(run_ids(lake))
    assert left[0] == ["r0", "r1", "r2", "r3"]
    assert left[-1] == ["r3"]
    assert sorted(left, key=len, reverse=True) == left
    expire(Lake(lakes[0]), 1)
    assert all_files(lakes[0]) == all_files(lakes[-1])


@pytest.mark.slow
def test_killed_at_any_file_operation_expiring_is_finished_by_the_next_run(tmp_path: Path) -> None:
    subprocess.run(**script(str(tmp_path), "jsonl", "expire"), check=True)
    for lake in tmp_path.iterdir():
        recover(lake, "jsonl")
        assert_clean(lake)


@pytest.mark.slow
@KINDS
def test_killed_at_any_file_operation_a_sweep_is_finished_by_another(tmp_path: Path, kind: str) -> None:
    subprocess.run(**script(str(tmp_path), kind, "sweep"), check=True)
    lakes = sorted(tmp_path.iterdir())
    assert len(lakes) > 10
    for lake in lakes:
        assert {finding.kind for finding in verify(lake).findings} <= {"interrupted", "orphan"}
        assert promised(lake).items() <= visible(lake).items()
        sweep(Lake(lake))
        assert run_ids(lake) == ["r0", "r1", "r3"]
        assert_clean(lake)


# -- sweep


def test_a_clean_lake_is_left_as_it_is(tmp_path: Path) -> None:
    four_days(tmp_path)
    before = all_files(tmp_path)
    assert sweep(Lake(tmp_path)) == []
    assert all_files(tmp_path) == before


@KINDS
def test_files_of_runs_without_a_manifest_go(tmp_path: Path, kind: str) -> None:
    four_days(tmp_path, kind)
    orphan(tmp_path, "prod.r1")
    day = "date=2026-11-24"
    assert sweep(Lake(tmp_path)) == [f"{stream}/{day}/prod.r1.{kind}" for stream in ("databases", "tables")]
    assert day not in days(tmp_path)
    assert run_ids(tmp_path) == ["r0", "r2", "r3"]
    assert_clean(tmp_path)


def test_a_file_that_its_runs_own_manifest_does_not_name_goes(tmp_path: Path) -> None:
    four_days(tmp_path)
    (tmp_path / "columns/date=2026-11-23").mkdir(parents=True)
    (tmp_path / "columns/date=2026-11-23/prod.r0.jsonl").touch()
    assert sweep(Lake(tmp_path)) == ["columns/date=2026-11-23/prod.r0.jsonl"]
    assert_clean(tmp_path)


STRANGERS = [
    "tables/prod.r9.jsonl",
    "tables/date=2026-11-23/part-0.jsonl",
    "tables/date=2026-11-23/part-0.c000.snappy.parquet",
    "tables/date=2026-11-23/_prod.r9.jsonl",
    "tables/date=2026-11-23/prod.r9.jsonl.tmp",
    "tables/date=2026-11-23/prod.r9.csv",
    "tables/date=2026-11-23/deeper/prod.r9.jsonl",
    "tables/date=23/prod.r9.jsonl",
    "regions/date=2026-11-23/prod.r9.jsonl",
]


@pytest.mark.parametrize("path", STRANGERS)
def test_a_strangers_file_stays(tmp_path: Path, path: str) -> None:
    four_days(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    assert sweep(Lake(tmp_path)) == []
    assert (tmp_path / path).exists()


def test_files_of_a_run_whose_manifest_cannot_be_read_stay(tmp_path: Path) -> None:
    four_days(tmp_path)
    (tmp_path / "_manifests/prod.r1.json").write_text("{")
    before = all_files(tmp_path)
    assert sweep(Lake(tmp_path)) == []
    assert all_files(tmp_path) == before


def test_files_of_a_run_that_a_process_holds_stay(tmp_path: Path) -> None:
    four_days(tmp_path)
    orphan(tmp_path, "prod.r1")
    lake = Lake(tmp_path)
    lock = lake.hold("prod.r1")
    assert lock is not None
    assert sweep(lake) == []
    lake.let_go(lock)
    assert len(sweep(lake)) == 2


def test_a_lake_that_lost_all_its_manifests_is_not_swept_away(tmp_path: Path) -> None:
    four_days(tmp_path)
    for day in range(4):
        orphan(tmp_path, f"prod.r{day}")
    before = all_files(tmp_path)
    with pytest.raises(ConfigError, match=r"holds files of runs, and no manifest; restore .*_manifests, or remove"):
        sweep(Lake(tmp_path))
    assert all_files(tmp_path) == before


def test_what_dead_processes_left_is_finished_or_cleared(tmp_path: Path) -> None:
    four_days(tmp_path)
    unfinish(tmp_path, "prod.r2")
    dead = tmp_path / "_staging/prod.dead"
    dead.mkdir()
    (dead / "tables").write_text("half a file")
    sweep(Lake(tmp_path))
    assert run_ids(tmp_path) == ["r0", "r1", "r2", "r3"]
    assert_clean(tmp_path)


def test_only_days_that_are_empty_and_named_so_go(tmp_path: Path) -> None:
    four_days(tmp_path)
    for name in ("tables/date=1999-01-02", "tables/date=mine", "tables/mine", "regions/date=1999-01-02"):
        (tmp_path / name).mkdir(parents=True)
    sweep(Lake(tmp_path))
    assert not (tmp_path / "tables/date=1999-01-02").exists()
    assert {"date=mine", "mine", "date=2026-11-23"} <= set(days(tmp_path))
    assert (tmp_path / "regions/date=1999-01-02").exists()


@pytest.mark.parametrize("suffix", [*SUFFIXES.values(), parquet(Path()).suffix])
def test_a_run_is_known_by_the_names_of_its_files(suffix: str) -> None:
    assert run_stem(f"tables/date=2026-11-23/a%2Eb~0.r_1-x{suffix}") == "a%2Eb~0.r_1-x"
