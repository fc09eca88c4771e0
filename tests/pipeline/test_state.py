from __future__ import annotations

import os
import signal
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
from crdbexport.errors import RunHeldError, StorageError
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
    batches=(SpooledBatch("tables", 0, 2),),
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


def test_a_run_is_held_by_one_process_until_that_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunHeldError, match='run "r1" of cluster "c1" is held by another process') as raised:
        RunState(tmp_path / "state", "c1", "r1")
    assert raised.value.exit_code == 5
    RunState(tmp_path / "state", "c1", "r2").close()

    holder.send_signal(signal.SIGKILL)
    holder.wait(PATIENCE_SECONDS)

    RunState(tmp_path / "state", "c1", "r1").close()


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


def test_the_first_attempt_decides_when_the_run_was(state: RunState) -> None:
    assert state.begin(record()) == record()

    assert state.begin(record(at=NOON + timedelta(days=1))) == record()


@pytest.mark.parametrize(
    "keep",
    [lambda state: state.keep_extraction(EXTRACTION), lambda state: state.keep_report(report())],
    ids=["read", "committed"],
)
def test_other_settings_are_refused_once_the_run_is_read(state: RunState, keep: Callable[[RunState], None]) -> None:
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


def test_dropping_what_was_read_takes_the_spool_with_it(state: RunState) -> None:
    state.keep_extraction(EXTRACTION)
    state.spool_directory.mkdir()
    (state.spool_directory / "00000000.arrows").touch()

    for _ in range(2):
        state.drop_extraction()
        assert state.extraction() is None
        assert not state.spool_directory.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"run_id": 1}', b"\xff"], ids=repr)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run.json", lambda state: state.begin(record())),
        ("extraction.json", lambda state: state.extraction()),
        ("report.json", lambda state: state.report()),
    ],
    ids=["run.json", "extraction.json", "report.json"],
)
def test_a_damaged_file_is_named_with_what_to_do(
    state: RunState, name: str, read: Callable[[RunState], Any], content: bytes
) -> None:
    (state.directory / name).write_bytes(content)

    with pytest.raises(ConfigError) as raised:
        read(state)
    message = str(raised.value)
    assert message.startswith(f"{state.directory / name}: damaged, or of another version of crdbexport")
    assert f"give another --run-id, or delete {state.directory}" in message


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
        "run.json": 0o600,
        "extraction.json": 0o600,
        "report.json": 0o600,
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


def test_a_state_file_that_cannot_be_written_is_a_trouble_of_the_disk(state: RunState) -> None:
    (state.directory / "report.tmp").mkdir()

    with pytest.raises(StorageError) as raised:
        state.keep_report(report())
    assert str(state.directory) in str(raised.value)
    assert raised.value.exit_code == 5
