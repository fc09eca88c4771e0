from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from crdbexport.errors import ConfigError, RunHeldError, SinkRefusedError, SnapshotKeptError, StorageError
from crdbexport.file_names import file_stem
from crdbexport.records import STREAMS, Gap
from crdbexport.sinks.base import Batch, Sink
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import write_manifest
from crdbexport.sinks.publishing import Publication
from tests.sinks.lake_support import (
    DAY,
    SINKS,
    TWO_STREAMS,
    a_run,
    all_files,
    an_outcome,
    at_operation,
    deliver,
    everything,
    jsonl,
    leftovers,
    manifests,
    parquet,
    promised,
    publish_new,
    publish_old,
    records,
    recover,
    script,
    visible,
)

KINDS = pytest.mark.parametrize("kind", SINKS)


def run_ids(lake: Path) -> list[str]:
    return [manifest.run_id for manifest in manifests(lake)]


def assert_consistent(lake: Path) -> None:
    """Readers of the tree and readers of the manifests see the same whole runs, and nothing lies about."""
    assert visible(lake) == promised(lake)
    assert leftovers(lake) == []


# -- layout


@KINDS
def test_each_stream_has_a_file_under_its_day_also_without_rows(tmp_path: Path, kind: str) -> None:
    deliver(SINKS[kind](tmp_path), a_run(), [("tables", records("tables", 5))])
    assert sorted(visible(tmp_path)) == sorted(f"{stream}/date=2026-11-23/prod.one.{kind}" for stream in STREAMS)
    [manifest] = manifests(tmp_path)
    assert manifest.rows == {stream: 5 if stream == "tables" else 0 for stream in STREAMS}
    assert (tmp_path / "_manifests/prod.one.json").is_file()
    assert_consistent(tmp_path)


def test_the_day_is_that_of_utc(tmp_path: Path) -> None:
    day = datetime(2026, 11, 23, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    deliver(jsonl(tmp_path), a_run(day=day, streams=["tables"]), [])
    assert list(visible(tmp_path)) == ["tables/date=2026-11-24/prod.one.jsonl"]


def test_the_receipt_says_what_lies_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = a_run(streams=TWO_STREAMS)
    receipt = deliver(parquet(Path("lake")), run, everything(run, 4))
    assert [artifact.stream for artifact in receipt.artifacts] == list(TWO_STREAMS)
    for artifact in receipt.artifacts:
        data = Path(artifact.location).read_bytes()
        assert artifact.location == f"lake/{artifact.stream}/date=2026-11-23/prod.one.parquet"
        assert (artifact.rows, artifact.size_bytes) == (4, len(data))
        assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert receipt.size_bytes == sum(artifact.size_bytes or 0 for artifact in receipt.artifacts)


def test_the_manifest_tells_gaps_and_whether_the_run_is_complete(tmp_path: Path) -> None:
    gaps = (Gap(database="bank", part="tables", reason="timeout"),)
    deliver(jsonl(tmp_path), a_run(), [], an_outcome(complete=False, gaps=gaps))
    [manifest] = manifests(tmp_path)
    assert (manifest.complete, manifest.gaps, manifest.sink) == (False, gaps, "jsonl")
    assert manifest.extracted_at == a_run().extracted_at


@KINDS
def test_equal_runs_publish_equal_trees(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        deliver(SINKS[kind](tmp_path / name), a_run(), everything(a_run(), 30))
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")


@KINDS
def test_published_files_follow_the_umask(tmp_path: Path, kind: str) -> None:
    before = os.umask(0o027)
    try:
        deliver(SINKS[kind](tmp_path / "lake"), a_run(), everything(a_run()))
    finally:
        os.umask(before)
    modes = {
        path.is_dir(): stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "lake", *(tmp_path / "lake").rglob("*")]
    }
    assert modes == {True: 0o750, False: 0o640}


# -- visibility and abort


@KINDS
def test_nothing_is_visible_before_commit_and_abort_leaves_nothing(tmp_path: Path, kind: str) -> None:
    sink = SINKS[kind](tmp_path)
    sink.preflight(run=a_run())
    sink.open(run=a_run())
    for sequence, (stream, data) in enumerate(everything(a_run(), 100)):
        sink.write(batch=Batch(stream, sequence, data))
        assert visible(tmp_path) == {}
    assert "prod.one" in leftovers(tmp_path)
    assert list(tmp_path.rglob(f"*.{kind}")) == []
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == [tmp_path / "_staging"]
    assert leftovers(tmp_path) == []


@KINDS
def test_abort_may_come_at_any_time(tmp_path: Path, kind: str) -> None:
    SINKS[kind](tmp_path).abort()
    sink = SINKS[kind](tmp_path)
    sink.preflight(run=a_run())
    sink.abort()
    deliver(sink, a_run(), everything(a_run()))
    published = all_files(tmp_path)
    sink.abort()
    assert all_files(tmp_path) == published
    assert published


@KINDS
def test_aborting_closes_all_files(tmp_path: Path, kind: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = descriptors()
    sinks = [SINKS[kind](tmp_path) for _ in range(3)]
    for number, sink in enumerate(sinks):
        sink.open(run=a_run(str(number)))
    assert descriptors() >= before + 3 * len(STREAMS)
    for sink in sinks:
        sink.abort()
    assert descriptors() == before


# -- snapshots


@pytest.mark.slow
@KINDS
def test_ten_runs_of_one_snapshot_leave_the_last(tmp_path: Path, kind: str) -> None:
    for number in range(10):
        run = a_run(f"run-{number}")
        deliver(SINKS[kind](tmp_path), run, everything(run, number))
    assert run_ids(tmp_path) == ["run-9"]
    assert len(visible(tmp_path)) == len(STREAMS)
    assert_consistent(tmp_path)


def test_other_clusters_and_days_are_left_alone(tmp_path: Path) -> None:
    runs = [
        a_run("1", cluster="a"),
        a_run("2", cluster="a", day=DAY + timedelta(days=1)),
        a_run("3", cluster="b"),
        a_run("4", cluster="a.b"),
        a_run("5", cluster="a"),
    ]
    for run in runs:
        deliver(jsonl(tmp_path), run, everything(run))
    assert sorted(run_ids(tmp_path)) == ["2", "3", "4", "5"]
    assert_consistent(tmp_path)


def test_a_superseded_run_takes_its_other_streams_and_formats_along(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path, compression="gzip"), a_run("old"), everything(a_run("old")))
    run = a_run("new", streams=["tables"])
    deliver(jsonl(tmp_path), run, everything(run))
    assert list(visible(tmp_path)) == ["tables/date=2026-11-23/prod.new.jsonl"]
    assert_consistent(tmp_path)


def test_an_incomplete_run_never_supersedes_a_complete_one(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path), a_run("whole"), everything(a_run("whole")))
    before = all_files(tmp_path)
    sink = jsonl(tmp_path)
    sink.open(run=a_run("partial"))
    with pytest.raises(SnapshotKeptError, match='keeps the complete snapshot of run "whole" for cluster "prod"'):
        sink.commit(outcome=an_outcome(complete=False))
    assert all_files(tmp_path) == before
    assert_consistent(tmp_path)


@pytest.mark.parametrize(("first", "second"), [(False, False), (False, True), (True, True)])
def test_a_later_run_supersedes_unless_it_knows_less(tmp_path: Path, first: bool, second: bool) -> None:
    deliver(jsonl(tmp_path), a_run("1"), everything(a_run("1")), an_outcome(complete=first))
    deliver(jsonl(tmp_path), a_run("2"), everything(a_run("2")), an_outcome(complete=second))
    assert run_ids(tmp_path) == ["2"]
    assert_consistent(tmp_path)


def test_the_rule_is_checked_at_commit_not_at_open(tmp_path: Path) -> None:
    partial = jsonl(tmp_path)
    partial.open(run=a_run("partial"))
    deliver(jsonl(tmp_path), a_run("whole"), everything(a_run("whole")))
    with pytest.raises(SnapshotKeptError):
        partial.commit(outcome=an_outcome(complete=False))
    assert run_ids(tmp_path) == ["whole"]


@KINDS
def test_the_same_run_again_writes_nothing_new(tmp_path: Path, kind: str) -> None:
    def deliver_it(count: int) -> object:
        return deliver(SINKS[kind](tmp_path), a_run(), everything(a_run(), count))

    def state() -> dict[str, tuple[str, int]]:
        return {path: (sha, (tmp_path / path).stat().st_mtime_ns) for path, sha in visible(tmp_path).items()}

    receipt = deliver_it(5)
    before = state()
    assert deliver_it(5) == receipt
    with pytest.raises(SinkRefusedError, match='run "one" is published already, with other records'):
        deliver_it(8)
    assert state() == before
    assert_consistent(tmp_path)


def test_commit_may_be_repeated(tmp_path: Path) -> None:
    sink = jsonl(tmp_path)
    receipt = deliver(sink, a_run(), everything(a_run()))
    assert sink.commit(outcome=an_outcome()) == receipt
    assert_consistent(tmp_path)


def test_a_run_that_was_read_earlier_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    newer = a_run("newer")
    older = replace(a_run("older"), extracted_at=newer.extracted_at - timedelta(hours=1))
    deliver(jsonl(tmp_path), newer, everything(newer))
    with pytest.raises(SnapshotKeptError, match='keeps the newer snapshot of run "newer"'):
        deliver(jsonl(tmp_path), older, everything(older))
    assert run_ids(tmp_path) == ["newer"]
    assert_consistent(tmp_path)


def test_a_directory_holds_one_format_whatever_the_cluster(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path), a_run(), everything(a_run()))
    other = replace(a_run("r2"), cluster="another")
    with pytest.raises(ConfigError, match="holds runs of a jsonl sink"):
        SINKS["parquet"](tmp_path).preflight(other)


def test_a_superseded_run_may_come_back(tmp_path: Path) -> None:
    for run_id in ("one", "two", "one"):
        deliver(jsonl(tmp_path), a_run(run_id), everything(a_run(run_id)))
    assert run_ids(tmp_path) == ["one"]
    assert_consistent(tmp_path)


# -- one writer


def hold_elsewhere(lake: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(**script("hold", str(lake), kind), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
@KINDS
def test_a_held_run_is_refused_until_its_holder_is_killed(tmp_path: Path, kind: str) -> None:
    holder = hold_elsewhere(tmp_path, kind)
    try:
        sink = SINKS[kind](tmp_path)
        with pytest.raises(RunHeldError, match='another process is publishing run "held" of cluster "prod"'):
            sink.open(run=a_run("held"))
        sink.abort()
        assert "prod.held" in leftovers(tmp_path)
        deliver(SINKS[kind](tmp_path), a_run("other", cluster="b"), [])
        assert "prod.held" in leftovers(tmp_path), "staging of a living run was cleared"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    deliver(SINKS[kind](tmp_path), a_run("held"), everything(a_run("held")))
    assert_consistent(tmp_path)


@pytest.mark.slow
def test_killed_runs_leave_no_growing_litter(tmp_path: Path) -> None:
    for _ in range(3):
        holder = hold_elsewhere(tmp_path, "jsonl")
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert leftovers(tmp_path) == ["prod.held", "prod.held.lock"]
    recover(tmp_path, "jsonl")
    assert leftovers(tmp_path) == []


def test_a_run_held_within_the_process_is_refused_too(tmp_path: Path) -> None:
    first, second = jsonl(tmp_path), jsonl(tmp_path)
    first.open(run=a_run())
    with pytest.raises(RunHeldError):
        second.open(run=a_run())
    second.abort()
    first.commit(outcome=an_outcome())
    assert run_ids(tmp_path) == ["one"]


@pytest.mark.slow
def test_runs_of_one_snapshot_at_the_same_moment_leave_one(tmp_path: Path) -> None:
    def publish(number: int) -> None:
        run = a_run(f"run-{number}", streams=TWO_STREAMS)
        deliver(jsonl(tmp_path), run, everything(run))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run_ids(tmp_path)) == 1
    assert_consistent(tmp_path)


@pytest.mark.parametrize(("cluster", "run_id"), [("commit", "lock"), ("_commit", "lock"), ("_probe", "new"), ("", "")])
def test_no_run_collides_with_the_names_in_staging(tmp_path: Path, cluster: str, run_id: str) -> None:
    run = a_run(run_id, cluster=cluster)
    deliver(jsonl(tmp_path), run, everything(run))
    assert_consistent(tmp_path)
    assert run_ids(tmp_path) == [run_id]


# -- crashes


def assert_whole_runs(lake: Path) -> str:
    """Check a lake after a crash, before and after the next run opens; the run that it shows in the end."""
    whole = {**expected_files("old"), **expected_files("new")}
    shown = visible(lake)
    assert shown.items() <= whole.items(), "a file that is not whole is visible"
    assert promised(lake).items() <= shown.items(), "a manifest names a file that is not there"
    for stream in TWO_STREAMS:
        assert any(path.startswith(f"{stream}/") for path in shown), "a reader sees no rows"
    recover(lake, "jsonl")
    assert_consistent(lake)
    [run_id] = run_ids(lake)
    assert visible(lake) == expected_files(run_id)
    return run_id


EXPECTED: dict[str, dict[str, str]] = {}


def expected_files(run_id: str) -> dict[str, str]:
    return EXPECTED[run_id]


@contextmanager
def expecting(tmp_path: Path, kind: str) -> Iterator[None]:
    publish_old(tmp_path / "old", kind)
    publish_new(tmp_path / "new", kind)
    EXPECTED.update(old=visible(tmp_path / "old"), new=visible(tmp_path / "new"))
    assert EXPECTED["old"].keys().isdisjoint(EXPECTED["new"].keys())
    yield
    EXPECTED.clear()


@pytest.mark.slow
@KINDS
def test_killed_at_any_file_operation_a_run_is_published_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "lakes"
    base.mkdir()
    with expecting(tmp_path, kind):
        subprocess.run(**script("crash-everywhere", str(base), kind), check=True)
        survivors = [assert_whole_runs(lake) for lake in sorted(base.iterdir())]
    assert len(survivors) > 30
    assert sorted(survivors, key=["old", "new"].index) == survivors, "an operation undid the commit"
    assert set(survivors) == {"old", "new"}


def test_what_a_step_relies_on_is_durable_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_old(tmp_path, "jsonl")
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(("sync", str(path.relative_to(tmp_path))))
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        steps.append(("rename", str(Path(target).relative_to(tmp_path))))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    publish_new(tmp_path, "jsonl")

    def synced_between(start: tuple[str, str] | None, end: tuple[str, str]) -> set[str]:
        first = steps.index(start) if start else 0
        return {path for kind, path in steps[first : steps.index(end)] if kind == "sync"}

    staging, manifest = "_staging/prod.new", ("rename", "_manifests/prod.new.json")
    prepared = ("rename", f"{staging}/prepared.json")
    places = [("rename", f"{stream}/date=2026-11-23/prod.new.jsonl") for stream in TWO_STREAMS]
    aside = ("rename", f"{staging}/superseded.prod.old.json")
    staged = {f"{staging}/{stream}" for stream in TWO_STREAMS}
    assert synced_between(None, prepared) >= {*staged, staging, "_staging", f"{staging}/prepared.new"}
    assert synced_between(prepared, places[0]) >= {staging}
    days = {f"{stream}/date=2026-11-23" for stream in TWO_STREAMS}
    assert synced_between(places[1], manifest) >= {*days, *TWO_STREAMS, ".", f"{staging}/manifest.new"}
    assert synced_between(manifest, aside) >= {"_manifests"}
    after = {path for kind, path in steps[steps.index(aside) :] if kind == "sync"}
    assert after >= {staging, "_manifests", *days, "columns/date=2026-11-23"}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(14, 40, 5))
def test_killed_while_recovering_the_next_recovers(tmp_path: Path, first: int) -> None:
    base = tmp_path / "lakes"
    base.mkdir()
    with expecting(tmp_path, "jsonl"):
        subprocess.run(**script("crash-twice", str(base), "jsonl", str(first)), check=True)
        survivors = {assert_whole_runs(lake) for lake in base.iterdir()}
    assert len(survivors) == 1


def test_a_crashed_publication_is_finished_before_the_next_commit(tmp_path: Path) -> None:
    """An incomplete run that is open while a complete one crashes must not supersede it afterwards."""
    partial = jsonl(tmp_path)
    partial.open(run=a_run("partial"))
    prepare_and_die(tmp_path, "whole")
    with pytest.raises(SnapshotKeptError, match="whole"):
        partial.commit(outcome=an_outcome(complete=False))
    assert run_ids(tmp_path) == ["whole"]
    assert_consistent_but_for_dead(tmp_path, "whole")
    recover(tmp_path, "jsonl")
    assert_consistent(tmp_path)


def test_unfinished_clearing_spares_a_run_that_was_published_anew(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path), a_run(), everything(a_run()))
    dead = tmp_path / "_staging/prod.dead"
    dead.mkdir()
    [one] = manifests(tmp_path)
    for run_id in ("one", "two"):
        files = tuple(msgspec.structs.replace(f, path=f.path.replace(".one.", f".{run_id}.")) for f in one.files)
        aside = msgspec.structs.replace(one, run_id=run_id, files=files)
        write_manifest(aside, Lake(tmp_path).aside("prod.dead", f"prod.{run_id}"), via=dead / "new")
    orphan = tmp_path / "tables/date=2026-11-23/prod.two.jsonl"
    orphan.touch()
    recover(tmp_path, "jsonl")
    assert not orphan.exists()
    assert run_ids(tmp_path) == ["one"]
    assert_consistent(tmp_path)


def prepare_and_die(lake: Path, run_id: str) -> None:
    """Leave what a process leaves that is killed right after it wrote the prepared manifest."""
    elsewhere = lake.with_name("elsewhere")
    run = a_run(run_id)
    deliver(jsonl(elsewhere), run, everything(run))
    stem = file_stem(run.cluster, run_id)
    source, target = Lake(elsewhere), Lake(lake)
    target.staging(stem).mkdir()
    for file in manifests(elsewhere)[0].files:
        source.place(file).rename(target.staged(stem, file.stream))
    source.manifest(stem).rename(target.prepared(stem))


def assert_consistent_but_for_dead(lake: Path, run_id: str) -> None:
    assert visible(lake) == promised(lake)
    assert leftovers(lake) in ([], [file_stem("prod", run_id)])


def test_a_staged_file_that_vanished_is_named_with_a_way_out(tmp_path: Path) -> None:
    recover(tmp_path, "jsonl")
    prepare_and_die(tmp_path, "lost")
    (tmp_path / "_staging/prod.lost/tables").unlink()
    with pytest.raises(StorageError, match=r"tables/date=.*vanished.*remove .*_staging/prod\.lost, then"):
        jsonl(tmp_path).open(run=a_run("next"))


# -- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory that holds little: a file system of 512 KiB, or a limit on file sizes where none can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)], capture_output=True, check=False
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if mounted.returncode:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield place
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(place)], check=True)


def incompressible(rows: int) -> pa.RecordBatch:
    batch = records("tables", rows)
    index = batch.schema.get_field_index("kind")
    noise = pa.array([os.urandom(500).hex() for _ in range(rows)], pa.string())
    return batch.set_column(index, batch.schema.field(index), noise)


@pytest.mark.slow
@KINDS
def test_a_full_disk_fails_clearly_and_keeps_what_was_there(small_disk: Path, kind: str) -> None:
    lake = small_disk / "lake"
    deliver(SINKS[kind](lake), a_run("old"), everything(a_run("old")))
    before = all_files(lake)
    noise = ((("tables"), incompressible(500)) for _ in range(6))
    with pytest.raises(StorageError, match=r"\(more than [\d,]+ bytes are needed\); free space, then run the same"):
        deliver(SINKS[kind](lake), a_run("new"), noise)
    assert all_files(lake) == before
    assert_consistent(lake)
    deliver(SINKS[kind](lake), a_run("new"), everything(a_run("new")))
    assert run_ids(lake) == ["new"]


def test_a_full_disk_is_found_before_the_first_request(small_disk: Path) -> None:
    lake = small_disk / "lake"
    deliver(jsonl(lake), a_run("old"), [])
    with pytest.raises(OSError) as caught, (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    if caught.value.errno == errno.EFBIG:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(StorageError, match="free space, then run the same command"):
        jsonl(lake).preflight(run=a_run("new"))


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_any_file_operation_may_fail_once(tmp_path: Path, code: int) -> None:
    failures, too_late = [], []
    for number in range(1, 1000):
        lake = tmp_path / f"{number:03}"
        publish_old(lake, "jsonl")
        before = visible(lake)

        def fail() -> None:
            raise OSError(code, os.strerror(code), "the disk")

        try:
            with at_operation(number, fail) as counter:
                publish_new(lake, "jsonl")
        except StorageError as error:
            failures.append(number)
            assert "run the same command" in str(error)
            if "new" in run_ids(lake):
                too_late.append(number)
            else:
                assert visible(lake) == before
        else:
            assert "new" in run_ids(lake)
        committed = "new" in run_ids(lake)
        recover(lake, "jsonl")
        assert run_ids(lake) == (["new"] if committed else ["old"])
        assert_consistent(lake)
        publish_new(lake, "jsonl")
        assert run_ids(lake) == ["new"]
        assert_consistent(lake)
        if counter[0] < number:
            break
    assert len(failures) > 20
    assert len(too_late) == 1, "only syncing the manifest's directory may fail after the commit"


def test_a_directory_removed_while_running_is_an_error_of_storage(tmp_path: Path) -> None:
    sink = jsonl(tmp_path / "lake")
    sink.open(run=a_run())
    (tmp_path / "lake").rename(tmp_path / "gone")
    with pytest.raises(StorageError, match="No such file or directory"):
        sink.commit(outcome=an_outcome())
    sink.abort()


# -- preflight


@KINDS
def test_preflight_leaves_nothing_but_the_lock(tmp_path: Path, kind: str) -> None:
    SINKS[kind](tmp_path / "a/b").preflight(run=a_run())
    assert [path.name for path in (tmp_path / "a/b").rglob("*")] == ["_staging", "_commit.lock"]


def test_a_manifest_that_a_failing_disk_does_not_give_is_trouble_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(jsonl(tmp_path), a_run(), [])

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StorageError, match=r"prod\.one\.json: Input/output error; mend that, then run"):
        jsonl(tmp_path).preflight(run=a_run("new"))


@pytest.mark.parametrize("place", ["file/lake", "file"])
def test_a_directory_that_cannot_be_made_is_a_matter_of_configuration(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"file.*: cannot publish here: .*; make it writable for user id \d+"):
        jsonl(tmp_path / place).preflight(run=a_run())


def test_a_stream_on_another_file_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tables").symlink_to("/proc")
    with pytest.raises(ConfigError, match=r"tables: lies on another file system"):
        jsonl(tmp_path).preflight(run=a_run())


def test_two_formats_do_not_mix(tmp_path: Path) -> None:
    deliver(parquet(tmp_path), a_run("1"), [])
    with pytest.raises(ConfigError, match="holds runs of a parquet sink; name another directory for jsonl"):
        jsonl(tmp_path).preflight(run=a_run("2"))


def test_a_damaged_manifest_of_the_cluster_is_found_before_the_first_request(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path), a_run(), [])
    (tmp_path / "_manifests/prod.one.json").write_text("{")
    with pytest.raises(ConfigError, match=r"prod\.one\.json: the manifest is damaged"):
        jsonl(tmp_path).preflight(run=a_run("2"))


def test_two_spellings_of_a_directory_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    spellings: list[Sink] = [parquet(Path("lake")), jsonl("x/../lake"), parquet(tmp_path / "link")]
    assert {tuple(sink.directories()) for sink in spellings} == {(tmp_path / "lake",)}


# -- readers during commits


@pytest.mark.slow
def test_a_reader_never_sees_an_empty_or_partial_stream(tmp_path: Path) -> None:
    rows_of_a_run = 250
    deliver(parquet(tmp_path), a_run("0"), everything(a_run("0"), rows_of_a_run))
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(ds.dataset(tmp_path / "tables", format="parquet").to_table().num_rows)
            except FileNotFoundError:
                continue  # Superseded between listing and opening: a reader lists again.

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 11):
        run = a_run(str(number))
        deliver(parquet(tmp_path), run, everything(run, rows_of_a_run))
    stop.set()
    reader.join()
    assert len(seen) > 10
    assert set(seen) <= {rows_of_a_run, 2 * rows_of_a_run}


# -- the publication by itself


def test_a_publication_counts_what_is_staged(tmp_path: Path) -> None:
    publication = Publication(Lake(tmp_path), a_run(), sink="any", suffix=".any")
    assert publication.staged_bytes() == 0
    publication.open()
    publication.staged("tables").write_bytes(bytes(123))
    assert publication.staged_bytes() == 123
    publication.abort()


def test_the_lock_of_the_directory_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recover(tmp_path, "jsonl")
    monkeypatch.setattr("crdbexport.sinks.lake.LOCK_TIMEOUT_SECONDS", 0.1)
    with Lake(tmp_path).locked(), pytest.raises(RunHeldError, match="has been publishing for"):
        jsonl(tmp_path).open(run=a_run())


def test_times_in_file_names_are_those_of_the_run_only(tmp_path: Path) -> None:
    past = datetime(1999, 1, 2, tzinfo=UTC)
    deliver(jsonl(tmp_path), a_run(day=past, streams=["tables"]), [])
    assert list(visible(tmp_path)) == ["tables/date=1999-01-02/prod.one.jsonl"]
