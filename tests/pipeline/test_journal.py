"""The journal: what was kept is there after a kill; trouble is told by name; space comes back."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from crdbexport.errors import ConfigError, StorageError
from crdbexport.pipeline.journal import Journal

PATIENCE_SECONDS = 20.0
KEEPING = """
import sys
from pathlib import Path
from crdbexport.pipeline.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.keep_document("run", {"id": 1})
journal.keep_sink("lake", "committed")
print("kept", flush=True)
sys.stdin.read()
"""


class Run(msgspec.Struct):
    name: str


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as made:
        yield made


def test_what_was_kept_is_there_for_the_next_process(journal: Journal, path: Path) -> None:
    journal.keep_document("run", Run("r1"))
    journal.keep_sink("lake", Run("in lake"))
    journal.close()

    with closing(Journal(path)) as again:
        assert again.document("run", Run) == Run("r1")
        assert again.sinks(Run) == {"lake": Run("in lake")}


def test_what_was_kept_survives_the_death_of_the_process(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEEPING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        process.send_signal(signal.SIGKILL)

    with closing(Journal(path)) as journal:
        assert journal.document("run", dict) == {"id": 1}
        assert journal.sinks(str) == {"lake": "committed"}


def test_what_nobody_kept_is_nothing(journal: Journal) -> None:
    assert journal.document("run", Run) is None
    assert journal.sinks(Run) == {}


def test_the_latest_of_a_name_counts(journal: Journal) -> None:
    for value in ("a", "b"):
        journal.keep_document("run", Run(value))
        journal.keep_sink("lake", Run(value))

    assert journal.document("run", Run) == Run("b")
    assert journal.sinks(Run) == {"lake": Run("b")}


def test_a_document_may_take_the_place_of_another(journal: Journal) -> None:
    journal.keep_document("extraction", Run("read"))
    journal.keep_document("report", Run("told"), instead_of="extraction")

    assert journal.document("extraction", Run) is None
    assert journal.document("report", Run) == Run("told")


def test_a_document_that_cannot_be_written_whole_leaves_the_one_before(journal: Journal) -> None:
    journal.keep_document("run", Run("r1"))

    with pytest.raises(TypeError):
        journal.keep_document("run", object())

    assert journal.document("run", Run) == Run("r1")


def test_a_journal_that_was_closed_says_so_and_is_not_called_damaged(journal: Journal, path: Path) -> None:
    journal.close()
    with pytest.raises(StorageError, match="closed"):
        journal.keep_sink("lake", Run("too late"))


def test_any_number_of_threads_may_use_it(journal: Journal) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            journal.keep_sink(f"{thread}", number)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_SECONDS)

    assert journal.sinks(int) == {str(each): 19 for each in range(4)}


def test_a_reader_sees_what_a_writer_keeps_meanwhile(journal: Journal, path: Path) -> None:
    with closing(Journal(path, make=False)) as reader:
        journal.keep_document("run", Run("r1"))
        assert reader.document("run", Run) == Run("r1")
        journal.keep_document("extraction", Run("read"))
        assert reader.document("extraction", Run) == Run("read")


def test_a_reader_makes_nothing_of_a_journal_in_the_making(path: Path) -> None:
    path.touch()
    with closing(Journal(path, make=False)) as reader:
        assert not reader.made
    assert path.stat().st_size == 0

    with closing(Journal(path)) as maker:
        assert maker.made


def test_the_journal_is_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Journal(path)) as journal:
            journal.keep_document("run", Run("r1"))
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"{tmp_path / 'gone'}"):
        Journal(tmp_path / "gone" / "journal.db")


def test_a_journal_that_is_damaged_in_its_middle_is_named_with_what_to_do(journal: Journal, path: Path) -> None:
    for number in range(500):
        journal.keep_sink(f"sink {number}", Run("x" * 500))
    journal.close()
    body = path.read_bytes()
    path.write_bytes(body[:8192] + b"\xee" * (len(body) - 8192))

    with pytest.raises(ConfigError, match=r"journal\.db: damaged.*delete"), closing(Journal(path)) as again:
        again.sinks(Run)


def limit_to_what_it_is(journal: Journal) -> None:
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def test_the_format_is_told_apart_from_other_files(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")

    with pytest.raises(ConfigError, match="another version of crdbexport"):
        Journal(path)
