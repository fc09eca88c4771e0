from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crdbexport.errors import StorageError
from crdbexport.pipeline.spool import Spool, SpoolCancelledError

PATIENCE_SECONDS = 5.0
DISK_BYTES = 64 * 1024


class Reader(threading.Thread):
    """Reads a spool to its end, and keeps what it read and what ended it."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(daemon=True)
        self.spool = spool
        self.read: list[tuple[str, int, list[str]]] = []
        self.error: BaseException | None = None
        self.met = threading.Condition()
        self.start()

    def run(self) -> None:
        try:
            for batch in self.spool.read():
                with self.met:
                    self.read.append((batch.stream, batch.sequence, batch.data.column("grantee").to_pylist()))
                    self.met.notify_all()
        except SpoolCancelledError as error:
            self.error = error.reason

    def wait_for(self, batches: int) -> None:
        with self.met:
            assert self.met.wait_for(lambda: len(self.read) >= batches, PATIENCE_SECONDS)

    def finish(self) -> None:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive()


def test_a_reader_waits_for_what_is_still_to_come(spool: Spool, grants: Any) -> None:
    reader = Reader(spool)
    spool.append("database_grants", grants("ann"))
    reader.wait_for(1)
    assert reader.is_alive()

    spool.append("database_grants", grants("bob"))
    reader.wait_for(2)
    assert reader.is_alive()

    spool.seal()
    reader.finish()
    assert reader.read == [("database_grants", 0, ["ann"]), ("database_grants", 1, ["bob"])]
    assert reader.error is None


def test_every_reader_reads_all_from_the_start_at_its_own_pace(spool: Spool, grants: Any) -> None:
    early = Reader(spool)
    slow = spool.read()
    for name in ("ann", "bob", "cid"):
        spool.append("database_grants", grants(name))
    early.wait_for(3)
    assert next(slow).data.column("grantee").to_pylist() == ["ann"]
    spool.seal()
    late = Reader(spool)

    early.finish()
    late.finish()
    assert early.read == late.read
    assert [batch.data.column("grantee").to_pylist() for batch in slow] == [["bob"], ["cid"]]


def test_sequences_count_within_a_stream_and_the_order_is_that_of_the_run(spool: Spool, grants: Any) -> None:
    for stream, name in (("one", "a"), ("two", "b"), ("one", "c"), ("two", "d"), ("one", "e")):
        assert spool.next_sequence(stream) == sum(each.stream == stream for each in spool.batches)
        spool.append(stream, grants(name))
    spool.seal()

    told = [(batch.stream, batch.sequence) for batch in spool.read()]

    assert told == [("one", 0), ("two", 0), ("one", 1), ("two", 1), ("one", 2)]


def test_a_batch_comes_back_as_it_was_put_in(spool: Spool, grants: Any) -> None:
    data = grants("ann", "漢字 🐓", "", 'quo"ted\n')
    spool.append("database_grants", data)
    spool.seal()

    (batch,) = spool.read()

    assert batch.data.equals(data)
    assert batch.data.schema.equals(data.schema, check_metadata=True)


def test_a_sealed_spool_is_read_again_by_a_later_process(spool: Spool, grants: Any) -> None:
    for name in ("ann", "bob"):
        spool.append("database_grants", grants(name))

    again = Spool(spool.directory, sealed=spool.batches)

    assert [batch.data.column("grantee").to_pylist() for batch in again.read()] == [["ann"], ["bob"]]
    assert [(each.stream, each.sequence, each.rows) for each in again.batches] == [
        ("database_grants", 0, 1),
        ("database_grants", 1, 1),
    ]
    assert again.size_bytes == spool.size_bytes == sum(path.stat().st_size for path in spool.directory.iterdir())


def test_an_empty_sealed_spool_ends_at_once(spool: Spool) -> None:
    spool.seal()

    assert list(spool.read()) == []


def test_cancelling_wakes_every_reader_with_the_reason(spool: Spool, grants: Any) -> None:
    reason = RuntimeError("over")
    readers = [Reader(spool), Reader(spool)]
    spool.append("database_grants", grants("ann"))
    for reader in readers:
        reader.wait_for(1)

    spool.cancel(reason)

    for reader in readers:
        reader.finish()
        assert reader.error is reason


def test_the_first_reason_stands_and_sealing_does_not_undo_it(spool: Spool) -> None:
    first = RuntimeError("first")
    spool.cancel(first)
    spool.cancel(RuntimeError("second"))
    spool.seal()

    with pytest.raises(SpoolCancelledError) as raised:
        next(spool.read())
    assert raised.value.reason is first


def test_a_cancelled_spool_takes_nothing_more(spool: Spool, grants: Any) -> None:
    spool.cancel(RuntimeError("over"))

    with pytest.raises(SpoolCancelledError, match="over"):
        spool.append("database_grants", grants("ann"))
    assert not spool.directory.exists()


def test_a_pause_ends_early_when_the_run_does(spool: Spool) -> None:
    woken: list[BaseException] = []

    def pause() -> None:
        try:
            spool.pause(3_600)
        except SpoolCancelledError as error:
            woken.append(error.reason)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    reason = RuntimeError("over")
    spool.cancel(reason)
    thread.join(PATIENCE_SECONDS)

    assert woken == [reason]
    spool_of_its_own = Spool(spool.directory)
    spool_of_its_own.pause(0.0)


def test_the_spool_is_for_its_owner_only(spool: Spool, grants: Any) -> None:
    before = os.umask(0)
    try:
        spool.append("database_grants", grants("ann"))
    finally:
        os.umask(before)

    (file,) = spool.directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that takes no more than 64 KiB; where none may be mounted, files that cannot grow beyond that."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if shutil.which("mount") and subprocess.run(mounting, check=False, capture_output=True).returncode == 0:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_BYTES, hard))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def incompressible(rows: int) -> pa.RecordBatch:
    return pa.record_batch({"grantee": pa.array([os.urandom(512).hex() for _ in range(rows)])})


def test_a_full_disk_is_named_with_the_file_that_did_not_fit(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    spool.append("database_grants", incompressible(10))
    big = incompressible(400)

    with pytest.raises(StorageError) as raised:
        spool.append("database_grants", big)

    message = str(raised.value)
    assert str(small_disk / "spool" / "00000001.arrows") in message
    assert "run the same command" in message
    assert raised.value.exit_code == 5
    assert isinstance(raised.value.__cause__, OSError)


def test_what_did_not_fit_is_not_among_the_batches(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    small = incompressible(10)
    spool.append("database_grants", small)
    with pytest.raises(StorageError):
        spool.append("database_grants", incompressible(400))

    spool.seal()

    assert [batch.data for batch in spool.read()] == [small]


def test_a_file_that_is_gone_is_told_as_such(tmp_path: Path, grants: Any) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append("database_grants", grants("ann"))
    spool.seal()
    (file,) = spool.directory.iterdir()
    file.unlink()

    with pytest.raises(StorageError, match=f"{file.name}: cannot be read back"):
        list(spool.read())


@pytest.mark.slow
def test_flipped_bits_and_cuts_of_a_batch_are_found(tmp_path: Path, grants: Any) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append("database_grants", grants("ann"))
    spool.seal()
    (file,) = spool.directory.iterdir()
    whole = file.read_bytes()
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :] for place in range(0, len(whole), 3)
    ]

    for damaged in [*flipped, *(whole[:length] for length in range(0, len(whole), 7)), whole + b"\0"]:
        file.write_bytes(damaged)
        with pytest.raises(StorageError, match=f"{file.name}: was changed since it was written"):
            list(spool.read())
    file.write_bytes(whole)
    assert len(list(spool.read())) == 1


def test_a_spool_takes_no_more_than_it_may(tmp_path: Path, grants: Any) -> None:
    one = Spool(tmp_path / "one")
    one.append("database_grants", grants("ann"))
    spool = Spool(tmp_path / "spool", limit_bytes=2 * one.size_bytes)
    spool.append("database_grants", grants("ann"))
    spool.append("database_grants", grants("ann"))

    with pytest.raises(StorageError, match="raise --spool-limit") as raised:
        spool.append("database_grants", grants("ann"))
    assert raised.value.exit_code == 5
    assert len(list(spool.directory.iterdir())) == 2
