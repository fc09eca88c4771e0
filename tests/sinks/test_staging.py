"""What sinks keep to themselves until they commit."""

from __future__ import annotations

import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from crdbexport import Batch, Run, Staging
from crdbexport.errors import StorageError

NOW = datetime(2026, 3, 5, tzinfo=UTC)
SCHEMA = pa.schema([("n", pa.int64())])
RUN = Run("c1", "r1", NOW, NOW, "lake", {"tables": SCHEMA, "columns": SCHEMA})


def batch(*numbers: int, stream: str = "tables") -> Batch:
    return Batch(stream, 0, pa.record_batch({"n": list(numbers)}, schema=SCHEMA))


def read(staging: Staging, stream: str) -> list[int]:
    with staging.read(stream) as batches:
        assert batches.schema == SCHEMA
        return [row["n"] for row in batches.read_all().to_pylist()]


def test_what_was_written_is_read_in_order_and_as_often_as_asked(tmp_path: Path) -> None:
    staging = Staging(RUN, "target", tmp_path)
    staging.write(batch(1, 2))
    staging.write(batch(9, stream="columns"))
    staging.write(batch(3))

    assert [read(staging, "tables") for _ in range(2)] == [[1, 2, 3]] * 2
    assert read(staging, "columns") == [9]
    assert (staging.rows("tables"), staging.rows("columns")) == (3, 1)
    staging.close()


def test_a_stream_without_records_reads_as_empty(tmp_path: Path) -> None:
    staging = Staging(RUN, "target", tmp_path)
    assert (read(staging, "tables"), staging.rows("tables")) == ([], 0)
    staging.close()


def test_only_its_owner_may_read_what_is_staged(tmp_path: Path) -> None:
    staging = Staging(RUN, "target", tmp_path)
    staging.write(batch(1))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in staging.directory.iterdir()}
    assert (stat.S_IMODE(staging.directory.stat().st_mode), modes) == (0o700, {0o600})
    staging.close()


def test_nothing_is_left_after_closing_which_may_come_twice(tmp_path: Path) -> None:
    staging = Staging(RUN, "target", tmp_path / "new" / "place")
    staging.write(batch(1))
    staging.close()
    staging.close()
    assert list((tmp_path / "new" / "place").iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_attempt_at_the_same_run(tmp_path: Path) -> None:
    dying = (
        "import os, pathlib, sys; from tests.sinks.test_staging import *; "
        "Staging(RUN, 'target', pathlib.Path(sys.argv[1])).write(batch(1)); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", dying, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()

    other = Staging(RUN, "another target", tmp_path)
    assert left.exists()
    staging = Staging(RUN, "target", tmp_path)
    assert not left.exists()
    staging.close()
    other.close()


def test_an_attempt_at_work_is_left_alone_by_another_one(tmp_path: Path) -> None:
    first = Staging(RUN, "target", tmp_path)
    first.write(batch(1))
    second = Staging(RUN, "target", tmp_path)
    second.write(batch(2))

    assert (read(first, "tables"), read(second, "tables")) == ([1], [2])
    first.close()
    second.close()


def test_attempts_that_begin_and_end_at_once_keep_off_each_other(tmp_path: Path) -> None:
    again_and_again = (
        "import pathlib, sys; from tests.sinks.test_staging import *\n"
        "for number in range(200):\n"
        "    staging = Staging(RUN, 'target', pathlib.Path(sys.argv[1]))\n"
        "    staging.write(batch(number))\n"
        "    assert stat.S_IMODE(staging.directory.stat().st_mode) == 0o700\n"
        "    assert read(staging, 'tables') == [number]\n"
        "    staging.close()\n"
    )
    command = [sys.executable, "-c", again_and_again, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [each.communicate(timeout=60)[1] for each in processes] == [""] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batches", [1, 1000])
def test_a_full_disk_is_told_as_such_before_anything_is_read_and_leaves_nothing(tmp_path: Path, batches: int) -> None:
    staging = Staging(RUN, "target", tmp_path)
    with room_for(4096), pytest.raises(StorageError, match="free space, then run the same command"):
        for _ in range(batches):
            staging.write(batch(*range(1000)))
        assert batches == 1, "nothing told of it while it filled"
        read(staging, "tables")
    staging.close()
    assert list(tmp_path.iterdir()) == []


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond that; EFBIG is what it gets, Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
