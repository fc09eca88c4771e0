from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crdbexport import ConfigError
from crdbexport.errors import RunHeldError
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.spool import SpooledBatch
from crdbexport.pipeline.state import Extraction, RunRecord, RunState
from crdbexport.records import Gap
from crdbexport.report import ObjectCounts, RequestCounts, RunReport, SinkReport, StreamCounts

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PATIENCE_SECONDS = 10.0
SETTINGS = {"logical_time": None, "stream": ["tables"], "database": [], "transforms": []}
HOLDING = """
import sys, time
from pathlib import Path
from crdbexport.pipeline.state import RunState
state = RunState(Path(sys.argv[1]), "c1", "r1")
print("held", flush=True)
time.sleep(60)
"""


def record(at: datetime = NOON, **changed: Any) -> RunRecord:
    return RunRecord("c1", "r1", at, at, {**SETTINGS, **changed})


EXTRACTION = Extraction(
    extracted_at=NOON,
    dialect="documented",
    streams={"tables": StreamCounts(3, 1, 1)},
    requests=RequestCounts(9, 1, 0, {"200": 9}),
    objects=ObjectCounts(3, 2, 1),
    gaps=(Gap(database="bank", part="tables", reason="forbidden", http_status=403),),
    batches=(SpooledBatch("tables", 0, 2, 10, 7),),
)


def report(status: Any = "committed") -> RunReport:
    return RunReport(
        run_id="r1",
        cluster="c1",
        logical_time=NOON,
        dialect="documented",
        status="complete",
        exit_code=0,
        started_at=NOON,
        finished_at=NOON,
        streams={},
        requests=RequestCounts(),
        objects=ObjectCounts(),
        gaps=(),
        sinks=(SinkReport("lake", "parquet", "/lake", status, {}, 0, ()),),
        versions={},
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[RunState]:
    with closing(RunState(tmp_path / "state", "c1", "r1")) as held:
        yield held


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_run_is_held_by_one_process_until_that_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunHeldError, match='run "r1" of cluster "c1" is held by another process') as raised:
        RunState(tmp_path / "state", "c1", "r1")
    assert raised.value.exit_code == 5
    RunState(tmp_path / "state", "c1", "r2").close()

    holder.send_signal(signal.SIGKILL)
    holder.wait(PATIENCE_SECONDS)

    RunState(tmp_path / "state", "c1", "r1").close()


@pytest.mark.slow
def test_a_run_is_held_against_another_thread_of_the_same_process_too(state: RunState, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def take() -> None:
        try:
            RunState(tmp_path / "state", "c1", "r1").close()
        except RunHeldError as error:
            errors.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert len(errors) == 1

    state.close()
    RunState(tmp_path / "state", "c1", "r1").close()


def test_the_first_answer_decides_when_the_run_was_read(state: RunState) -> None:
    later = NOON + timedelta(days=1)
    assert state.begin(record()) == record()
    begun_later = state.begin(record(at=later))
    assert (begun_later.logical_time, begun_later.started_at) == (NOON, later)

    state.answers.keep("question", b"answer")

    assert state.begin(record(at=later + timedelta(days=1))) == begun_later


@pytest.mark.parametrize(
    "keep",
    [
        lambda state: state.answers.keep("question", b"answer"),
        lambda state: state.keep_extraction(EXTRACTION),
        lambda state: state.keep_committed(report().sinks[0]),
    ],
    ids=["answered", "read", "committed"],
)
def test_other_settings_are_refused_once_something_is_read(state: RunState, keep: Callable[[RunState], None]) -> None:
    state.begin(record())
    keep(state)

    with pytest.raises(ConfigError, match='run "r1" was read with another database and another stream') as raised:
        state.begin(record(stream=["columns"], database=["bank"]))
    assert raised.value.exit_code == 2
    assert state.begin(record()) == record()


@pytest.mark.parametrize("status", [None, "failed", "aborted"])
def test_other_settings_are_taken_while_nothing_is_read_or_published(state: RunState, status: str | None) -> None:
    state.begin(record())
    if status:
        state.keep_report(report(status))

    assert state.begin(record(stream=["columns"])).settings["stream"] == ["columns"]
    assert state.begin(record(stream=["columns"])).settings["stream"] == ["columns"]


def test_settings_are_compared_as_they_are_written_down(state: RunState) -> None:
    state.begin(record(transforms=({"type": "mask", "fields": ("a", "b")},)))
    state.keep_extraction(EXTRACTION)

    state.begin(record(transforms=[{"type": "mask", "fields": ["a", "b"]}]))


def test_what_was_read_comes_back_as_it_was(state: RunState, tmp_path: Path) -> None:
    assert state.extraction() is None
    assert state.report() is None
    state.keep_extraction(EXTRACTION)
    state.keep_report(report())
    state.close()

    with closing(RunState(tmp_path / "state", "c1", "r1")) as again:
        assert again.extraction() == EXTRACTION
        assert again.report() == report()


def test_the_report_of_a_delivered_run_takes_the_place_of_what_was_read_and_spooled(state: RunState) -> None:
    state.keep_extraction(EXTRACTION)
    state.spool_directory.mkdir()
    (state.spool_directory / "00000000.arrows").touch()
    state.keep_report(report())
    assert state.extraction() == EXTRACTION

    for _ in range(2):
        state.keep_report(report(), delivered=True)
        assert (state.extraction(), state.report()) == (None, report())
        assert not state.spool_directory.exists()


def test_a_run_is_never_reported_as_delivered_while_what_was_read_is_still_kept(
    state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies in between would leave a spool that nobody is owed, and that no clearing up removes."""
    state.keep_extraction(EXTRACTION)
    monkeypatch.setattr(state, "drop_spool", state.journal.close)

    state.keep_report(report(), delivered=True)

    with closing(Journal(state.journal.path)) as left_behind:
        assert left_behind.document("report", RunReport) == report()
        assert left_behind.document("extraction", Extraction) is None


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"run_id": 1}', b'{"run_id": "\xff"}'], ids=repr)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run", lambda state: state.begin(record())),
        ("extraction", lambda state: state.extraction()),
        ("report", lambda state: state.report()),
    ],
    ids=["run", "extraction", "report"],
)
def test_a_damaged_document_is_named_with_what_to_do(
    state: RunState, name: str, read: Callable[[RunState], Any], content: bytes
) -> None:
    with closing(sqlite3.connect(state.journal.path)) as journal, journal:
        journal.execute("INSERT INTO documents VALUES (?, ?)", (name, content))

    with pytest.raises(ConfigError) as raised:
        read(state)
    message = str(raised.value)
    assert message.startswith(f"{state.journal.path}: damaged, or of another version of crdbexport")
    assert f"give another --run-id, or delete {state.directory}" in message


@pytest.mark.parametrize("content", [b"no database at all, but long enough to have a header" * 100, b"SQLite format 3"])
def test_a_journal_that_is_none_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    directory = tmp_path / "state" / "runs" / "c1.r1"
    directory.mkdir(parents=True)
    (directory / "journal.db").write_bytes(content)

    for _ in range(2):
        with pytest.raises(ConfigError, match=r"journal\.db: damaged, .* give another --run-id, or delete") as raised:
            RunState(tmp_path / "state", "c1", "r1")
        assert raised.value.exit_code == 2


@pytest.mark.parametrize("pragma", ["user_version = 1", "application_id = 7"])
def test_a_journal_of_another_format_is_refused_by_name(state: RunState, tmp_path: Path, pragma: str) -> None:
    path = state.journal.path
    state.close()
    with closing(sqlite3.connect(path)) as journal:
        journal.execute(f"PRAGMA {pragma}")

    with pytest.raises(ConfigError, match=r"journal\.db: is the journal of another version of crdbexport"):
        RunState(tmp_path / "state", "c1", "r1")


def test_a_journal_whose_maker_died_before_filling_it_is_filled(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "runs" / "c1.r1"
    directory.mkdir(parents=True)
    (directory / "journal.db").touch()

    with closing(RunState(tmp_path / "state", "c1", "r1")) as state:
        assert state.begin(record()) == record()


def test_state_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(RunState(tmp_path / "new" / "state", "c1", "r1")) as state:
            state.begin(record())
            state.keep_extraction(EXTRACTION)
            state.keep_report(report())
            kept = [tmp_path / "new" / "state", *(tmp_path / "new" / "state").rglob("*")]
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept}
    finally:
        os.umask(before)

    assert modes == {
        "state": 0o700,
        "runs": 0o700,
        "c1.r1": 0o700,
        "lock": 0o600,
        "answers.log": 0o600,
        "journal.db": 0o600,
        "journal.db-wal": 0o600,
        "journal.db-shm": 0o600,
    }


def test_runs_of_like_names_do_not_share_their_state(tmp_path: Path) -> None:
    names = [("a", "b.c"), ("a.b", "c"), ("a/b", "c"), ("..", "c"), ("A", "b.c")]
    states = [RunState(tmp_path / "state", *name) for name in names]

    assert len({state.directory for state in states}) == len(names)
    assert {state.directory.parent for state in states} == {tmp_path / "state" / "runs"}
    for state in states:
        state.close()


def test_a_state_directory_that_cannot_be_one_is_named_with_its_option(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()

    with pytest.raises(ConfigError, match=r"--state-dir .*file: cannot be written"):
        RunState(blocked, "c1", "r1")
