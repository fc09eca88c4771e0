"""What a state directory tells of its runs, and what may be cleared away."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from crdbexport import ConfigError
from crdbexport.errors import RunHeldError
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.runs import KnownRun, expired, find_run, held, known_runs, litter, remove, resumable_run
from crdbexport.pipeline.spool import SpooledBatch
from crdbexport.pipeline.state import Extraction, RunRecord, RunState
from crdbexport.report import (
    DeliveryCounts,
    ObjectCounts,
    RequestCounts,
    RunReport,
    SinkReport,
    StreamCounts,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SETTINGS: dict[str, Any] = {"logical_time": None, "stream": ("tables",), "database": (), "transforms": ()}
EXTRACTION = Extraction(
    extracted_at=NOON,
    dialect="documented",
    streams={"tables": StreamCounts(3, 0, 1)},
    requests=RequestCounts(),
    objects=ObjectCounts(),
    gaps=(),
    batches=(SpooledBatch("tables", 0, 3, 10, 7),),
)


def sink(status: Any = "committed", name: str = "lake", letters: int = 0) -> SinkReport:
    return SinkReport(name, "parquet", "/lake", status, {"tables": DeliveryCounts(3 - letters, letters, 0)}, 0, ())


def report(record: RunRecord, status: Any, exit_code: int, *sinks: SinkReport) -> RunReport:
    return RunReport(
        run_id=record.run_id,
        cluster=record.cluster,
        logical_time=record.logical_time,
        dialect="documented",
        status=status,
        exit_code=exit_code,
        started_at=record.started_at,
        finished_at=record.started_at,
        streams={"tables": StreamCounts(3, 0, 1)},
        requests=RequestCounts(),
        objects=ObjectCounts(),
        gaps=(),
        sinks=sinks or (sink(),),
        versions={},
    )


class Made(Protocol):
    def __call__(self, run_id: str, **what: Any) -> Path: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def made(root: Path) -> Made:
    """Leaves a run behind as a process would that came so far; answers its directory."""

    def make(
        run_id: str,
        *,
        cluster: str = "c1",
        day: int = 0,
        answers: bool = False,
        read: bool = False,
        status: str | None = None,
        exit_code: int = 0,
        letters: int = 0,
        **settings: Any,
    ) -> Path:
        at = NOON + timedelta(days=day)
        with closing(RunState(root, cluster, run_id)) as state:
            record = state.begin(RunRecord(cluster, run_id, at, at, {**SETTINGS, **settings}))
            if answers:
                state.answers.keep("question", b"answer")
            if read:
                state.keep_extraction(EXTRACTION)
                state.spool_directory.mkdir()
                (state.spool_directory / "00000000.arrows").write_bytes(bytes(1_000))
            if status:
                state.keep_report(report(record, status, exit_code, sink(letters=letters)))
            return state.directory

    return make


@pytest.fixture
def hold(root: Path) -> Iterator[Callable[[str], RunState]]:
    """Holds a run until the test ends."""
    with ExitStack() as holding:
        yield lambda run_id: holding.enter_context(closing(RunState(root, "c1", run_id)))


def only(root: Path) -> KnownRun:
    [run] = known_runs(root)
    return run


def test_a_state_directory_that_is_not_there_knows_no_runs(root: Path) -> None:
    assert known_runs(root) == []
    assert list(litter(root)) == list(expired(root, 1)) == []
    assert resumable_run(root, "c1", SETTINGS) is None


@pytest.mark.parametrize(
    ("what", "status", "exit_code", "resumable", "deliverable"),
    [
        ({}, "interrupted", None, False, False),
        ({"answers": True}, "interrupted", None, True, False),
        ({"read": True}, "interrupted", None, False, True),
        ({"answers": True, "status": "failed", "exit_code": 5}, "failed", 5, True, False),
        ({"answers": True, "status": "interrupted", "exit_code": 143}, "interrupted", 143, True, False),
        ({"read": True, "status": "incomplete", "exit_code": 3}, "incomplete", 3, False, True),
        ({"status": "complete"}, "complete", 0, False, False),
    ],
)
def test_a_run_is_known_for_what_became_of_it(
    made: Made,
    root: Path,
    what: dict[str, Any],
    status: str,
    exit_code: int | None,
    resumable: bool,
    deliverable: bool,
) -> None:
    directory = made("r1", **what)

    run = only(root)

    assert (run.cluster, run.run_id, run.directory) == ("c1", "r1", directory)
    assert (run.logical_time, run.started_at) == (NOON, NOON)
    assert (run.status, run.exit_code, run.resumable, run.deliverable) == (status, exit_code, resumable, deliverable)
    assert run.settings["stream"] == ["tables"]
    assert run.kept_bytes >= (1_000 if what.get("read") else 0)
    assert run.records == (3 if what.get("read") or what.get("status") else None)


def test_what_its_sinks_have_is_known_even_of_a_run_that_was_killed(made: Made, root: Path) -> None:
    directory = made("r1")
    with closing(Journal(directory / "journal.db")) as journal:
        journal.keep_document(
            "extraction",
            msgspec.structs.replace(EXTRACTION, sinks=(sink("aborted", "lake"), sink("aborted", "late"))),
        )
        journal.keep_sink("lake", sink(letters=2))

    run = only(root)

    assert run.sinks == {"lake": "committed", "late": "aborted"}
    assert run.dead_letters == 2
    assert run.owes


@pytest.mark.parametrize(("letters", "owes"), [(0, False), (2, True)])
def test_a_run_owes_what_a_sink_lacks_or_has_refused(made: Made, root: Path, letters: int, owes: bool) -> None:
    made("r1", status="incomplete", exit_code=3, letters=letters)
    assert (only(root).owes, only(root).dead_letters) == (owes, letters)


def test_a_run_at_work_is_running_whatever_its_last_report_says(
    made: Made, hold: Callable[[str], RunState], root: Path
) -> None:
    made("r1", answers=True, status="failed", exit_code=5)
    state = hold("r1")
    assert (only(root).status, only(root).exit_code, held(state.directory)) == ("running", None, True)

    state.close()
    assert (only(root).status, held(state.directory)) == ("failed", False)


def test_runs_come_by_cluster_and_then_oldest_first(made: Made, root: Path) -> None:
    for run_id, cluster, day in (("z", "c1", 0), ("a", "c1", 2), ("m", "c1", 1), ("b", "c0", 9), ("x", "c1.y", 5)):
        made(run_id, cluster=cluster, day=day)

    assert [(run.cluster, run.run_id) for run in known_runs(root)] == [
        ("c0", "b"),
        ("c1", "z"),
        ("c1", "m"),
        ("c1", "a"),
        ("c1.y", "x"),
    ]
    assert [run.run_id for run in known_runs(root, "c1")] == ["z", "m", "a"]


@pytest.mark.parametrize("cluster", ["a*", "[a]", "a/b", "..", "ü", "x" * 200])
def test_hostile_names_of_clusters_find_their_own_runs_only(made: Made, root: Path, cluster: str) -> None:
    made("r1", cluster=cluster)
    made("r1", cluster="abc")
    assert find_run(root, "r1", cluster).cluster == cluster
    assert [run.cluster for run in known_runs(root, cluster)] == [cluster]


def test_a_run_that_is_not_known_is_named_with_where_it_was_looked_for(made: Made, root: Path) -> None:
    made("r1")
    with pytest.raises(ConfigError, match=rf'no run "r2" is known in {root}; see `crdbexport runs list`'):
        find_run(root, "r2")


def test_a_run_of_two_clusters_has_to_be_told_apart(made: Made, root: Path) -> None:
    made("r1")
    made("r1", cluster="c2")
    with pytest.raises(ConfigError, match=r'known of several clusters \("c1", "c2"\); give --cluster'):
        find_run(root, "r1")
    assert find_run(root, "r1", "c2").cluster == "c2"


@pytest.mark.parametrize("damage", [b"no database" * 500, None], ids=["damaged", "of another version"])
def test_a_run_that_cannot_be_read_is_told_of_and_hides_no_other(
    made: Made, root: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    """An export without --run-id looks through all runs: what one left behind years ago must not stop it."""
    made("good", answers=True)
    bad = made("bad", day=-1) / "journal.db"
    if damage:
        bad.write_bytes(damage)
    else:
        with closing(sqlite3.connect(bad)) as journal:
            journal.execute("PRAGMA user_version = 99")

    assert [run.run_id for run in known_runs(root)] == ["good"]
    assert resumable_run(root, "c1", SETTINGS)
    assert str(bad) in caplog.text
    assert list(litter(root)) == []
    assert list(expired(root, 1)) == []


def test_a_journal_that_another_process_is_making_is_left_alone(root: Path, made: Made) -> None:
    directory = made("r1")
    with closing(sqlite3.connect(directory / "journal.db")) as journal:
        journal.executescript("DROP TABLE documents; DROP TABLE sinks; PRAGMA user_version = 0")

    assert known_runs(root) == []
    with closing(sqlite3.connect(directory / "journal.db")) as journal:
        assert journal.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_listing_runs_never_makes_one_that_begins_fail(made: Made, root: Path) -> None:
    made("r1")
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            known_runs(root)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for each in lookers:
        each.start()
    try:
        for _ in range(30):
            RunState(root, "c1", "r1").close()
    finally:
        over.set()
        for each in lookers:
            each.join()


@pytest.mark.parametrize("what", [{"answers": True}, {"read": True}, {"answers": True, "status": "failed"}])
def test_the_latest_unfinished_run_is_pointed_out(made: Made, root: Path, what: dict[str, Any]) -> None:
    made("old", answers=True)
    made("new", day=1, **what)
    found = resumable_run(root, "c1", SETTINGS)
    assert found
    assert found.run_id == "new"


@pytest.mark.parametrize("status", ["complete", "incomplete"])
def test_no_unfinished_run_is_pointed_out_once_a_later_one_was_finished(made: Made, root: Path, status: str) -> None:
    made("old", answers=True)
    made("new", day=1, status=status)
    assert resumable_run(root, "c1", SETTINGS) is None


def test_a_run_that_read_nothing_is_not_pointed_out(made: Made, root: Path) -> None:
    made("old", answers=True)
    made("new", day=1, status="failed", exit_code=5)
    found = resumable_run(root, "c1", SETTINGS)
    assert found
    assert found.run_id == "old"


def test_runs_of_other_settings_and_clusters_are_not_pointed_out(made: Made, root: Path) -> None:
    made("r1", answers=True, stream=("columns",))
    made("r2", answers=True, cluster="c2")
    assert resumable_run(root, "c1", SETTINGS) is None
    assert resumable_run(root, "c1", {**SETTINGS, "stream": ["columns"]})


def test_a_run_at_work_is_not_pointed_out(made: Made, root: Path, hold: Callable[[str], RunState]) -> None:
    made("r1", answers=True)
    hold("r1")
    assert resumable_run(root, "c1", SETTINGS) is None


def test_a_run_whose_reader_had_seen_enough_is_not_pointed_out(made: Made, root: Path) -> None:
    made("r1", answers=True, status="failed", exit_code=141)
    assert resumable_run(root, "c1", SETTINGS) is None


def test_what_a_run_needs_is_no_litter(made: Made, root: Path) -> None:
    made("r1", answers=True)
    made("r2", read=True)
    made("r3", status="complete")
    assert list(litter(root)) == []


def test_an_unfinished_spool_and_what_a_dead_redelivery_left_are_litter(made: Made, root: Path) -> None:
    unfinished, delivered = made("r1", answers=True), made("r2", read=True)
    for directory in (unfinished / "spool", unfinished / "refused", delivered / "refused"):
        directory.mkdir()
    wanted = [unfinished / "spool", unfinished / "refused", delivered / "refused"]
    assert list(litter(root)) == wanted

    assert all(remove(path) for path in wanted)

    assert not any(path.exists() for path in wanted)
    assert (delivered / "spool").exists()
    assert [run.resumable for run in known_runs(root)] == [True, False]


def test_a_directory_that_no_process_got_to_describe_is_litter(root: Path) -> None:
    RunState(root, "c1", "r1").close()
    (root / "runs" / "c1.r2").mkdir()
    assert [path.name for path in litter(root)] == ["c1.r1", "c1.r2"]


def test_nothing_of_a_run_at_work_is_litter(made: Made, root: Path, hold: Callable[[str], RunState]) -> None:
    directory = made("r1", answers=True)
    (directory / "spool").mkdir()
    hold("r1")
    hold("r2")
    assert list(litter(root)) == []


def test_what_has_come_to_life_meanwhile_is_not_removed(
    made: Made, root: Path, hold: Callable[[str], RunState]
) -> None:
    directory = made("r1")
    hold("r1")
    assert not remove(directory)
    assert (directory / "journal.db").exists()


@pytest.mark.slow
def test_a_run_that_is_removed_cannot_begin_meanwhile(made: Made, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made("r1")

    def try_to_begin(path: Path, ignore_errors: bool) -> None:
        with pytest.raises(RunHeldError):
            RunState(root, "c1", "r1")

    monkeypatch.setattr("crdbexport.pipeline.runs.shutil.rmtree", try_to_begin)
    assert remove(directory)


def test_what_came_before_the_latest_finished_runs_expires(made: Made, root: Path) -> None:
    for day in range(4):
        made(f"r{day}", day=day, status="incomplete" if day % 2 else "complete")
    assert [path.name for path in expired(root, 3)] == ["c1.r0"]
    assert [path.name for path in expired(root, 1)] == ["c1.r0", "c1.r1", "c1.r2"]
    assert list(expired(root, 4)) == list(expired(root, 9)) == []


def test_each_cluster_keeps_its_own_runs(made: Made, root: Path) -> None:
    for cluster in ("c1", "c2"):
        for day in range(2):
            made(f"r{day}", cluster=cluster, day=day, status="complete")
    assert [path.name for path in expired(root, 1)] == ["c1.r0", "c2.r0"]


def test_an_unfinished_run_expires_once_enough_have_finished_after_it(made: Made, root: Path) -> None:
    made("failed", status="failed", exit_code=5)
    made("half", day=1, answers=True, status="interrupted", exit_code=143)
    made("r1", day=2, status="complete")
    made("new", day=3, answers=True, status="failed", exit_code=5)
    assert [path.name for path in expired(root, 1)] == ["c1.failed", "c1.half"]
    assert list(expired(root, 2)) == []


def test_runs_that_owe_records_and_runs_at_work_do_not_expire(
    made: Made, root: Path, hold: Callable[[str], RunState]
) -> None:
    made("owes", read=True, status="incomplete", exit_code=3)
    made("works", day=1, status="complete")
    made("new", day=2, status="complete")
    hold("works")
    assert list(expired(root, 1)) == []


def test_a_file_that_vanishes_while_it_is_measured_counts_nothing(
    made: Made, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite removes its log when the last process closes the journal."""
    made("r1", answers=True)
    is_file = Path.is_file

    def vanishing(path: Path, **options: Any) -> bool:
        answer = is_file(path, **options)
        if path.name.endswith("-wal"):
            path.unlink()
        return answer

    monkeypatch.setattr(Path, "is_file", vanishing)
    with caplog.at_level(logging.WARNING):
        assert only(root).resumable
    assert not caplog.records
