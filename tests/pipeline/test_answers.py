"""Answers on disk: kept for the next attempt, whatever becomes of this one."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from crdbexport.errors import StorageError
from crdbexport.pipeline.answers import HEADER, Answers, has_answers

KEEPING = """
import sys
from pathlib import Path
from crdbexport.pipeline.answers import Answers
answers = Answers(Path(sys.argv[1]))
for number in range(50):
    answers.keep(f"question {number}", b"answer %d" % number)
print("kept", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.log"


@pytest.fixture
def answers(path: Path) -> Iterator[Answers]:
    with closing(Answers(path)) as made:
        yield made


def keep_fifty(path: Path) -> list[int]:
    """Where each of fifty entries ends."""
    with closing(Answers(path)) as answers:
        ends = []
        for number in range(50):
            answers.keep(f"question {number}", b"answer %d" % number)
            ends.append(path.stat().st_size)
    return ends


def recalled(path: Path) -> list[bytes | None]:
    with closing(Answers(path)) as answers:
        return [answers.recall(f"question {number}") for number in range(50)]


def test_what_was_kept_is_there_for_the_next_attempt(answers: Answers, path: Path) -> None:
    answers.keep("one", b"\x00\xff")
    answers.keep("two", b"")
    answers.close()

    with closing(Answers(path)) as again:
        assert (again.recall("one"), again.recall("two"), again.recall("three")) == (b"\x00\xff", b"", None)
        assert again


def test_the_last_of_two_answers_counts(answers: Answers, path: Path) -> None:
    answers.keep("one", b"a")
    answers.keep("one", b"b")
    answers.close()
    with closing(Answers(path)) as again:
        assert again.recall("one") == b"b"


def test_what_was_kept_survives_the_death_of_the_process(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEEPING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        process.send_signal(signal.SIGKILL)

    assert recalled(path) == [b"answer %d" % number for number in range(50)]


def test_a_file_that_is_cut_anywhere_holds_what_was_whole(path: Path) -> None:
    ends = keep_fifty(path)
    body = path.read_bytes()
    for cut in range(len(body)):
        path.write_bytes(body[:cut])
        whole = sum(end <= cut for end in ends)
        assert recalled(path) == [b"answer %d" % number if number < whole else None for number in range(50)]


def test_after_a_cut_more_can_be_kept(path: Path) -> None:
    keep_fifty(path)
    path.write_bytes(path.read_bytes()[:-1])
    with closing(Answers(path)) as answers:
        answers.keep("question 49", b"once more")
    assert recalled(path)[48:] == [b"answer 48", b"once more"]


@pytest.mark.parametrize("byte", [0, 3, 4, 7, HEADER.size, HEADER.size + 5])
def test_what_a_power_cut_left_torn_is_asked_again(path: Path, byte: int) -> None:
    ends = keep_fifty(path)
    body = bytearray(path.read_bytes())
    body[ends[19] + byte] ^= 0x40
    path.write_bytes(body)
    assert recalled(path) == [b"answer %d" % number for number in range(20)] + [None] * 30


def test_a_block_of_zeros_holds_nothing(path: Path) -> None:
    path.write_bytes(bytes(4096))
    with closing(Answers(path)) as answers:
        assert not answers


def test_what_is_whole_but_not_ours_ends_the_file(path: Path) -> None:
    keep_fifty(path)
    strange = msgspec.msgpack.encode({"of": "another version"})
    with path.open("ab") as file:
        file.write(HEADER.pack(len(strange), zlib.crc32(strange)) + strange)
    assert recalled(path) == [b"answer %d" % number for number in range(50)]


def test_what_is_damaged_meanwhile_is_asked_again(path: Path) -> None:
    ends = keep_fifty(path)
    with closing(Answers(path)) as answers:
        os.truncate(path, ends[9] + 3)
        assert answers.recall("question 9") == b"answer 9"
        assert answers.recall("question 10") is None


def test_a_length_that_was_torn_is_no_amount_of_memory(path: Path) -> None:
    path.write_bytes(HEADER.pack(2**32 - 1, 0) + bytes(100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with closing(Answers(path)) as answers:
        assert not answers
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_link_in_its_place_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"of somebody else")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(StorageError):
        Answers(path)
    assert (tmp_path / "other").read_bytes() == b"of somebody else"


def test_what_is_forgotten_gives_its_space_back(answers: Answers, path: Path) -> None:
    answers.keep("one", bytes(100_000))
    assert has_answers(path)

    answers.forget()

    assert (bool(answers), has_answers(path), path.stat().st_size) == (False, False, 0)
    answers.keep("two", b"answer")
    answers.close()
    with closing(Answers(path)) as again:
        assert (again.recall("one"), again.recall("two")) == (None, b"answer")


def test_a_disk_that_takes_no_answer_ends_the_questions_too(answers: Answers, path: Path) -> None:
    answers.keep("one", b"answer")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=r"answers\.log: File too large; free space") as raised:
            answers.keep("two", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert raised.value.exit_code == 5
    with pytest.raises(StorageError, match="File too large"):
        answers.recall("one")
    with closing(Answers(path)) as again:
        assert (again.recall("one"), again.recall("two")) == (b"answer", None)


def test_questions_of_one_number_are_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_fifty(path)
    monkeypatch.setattr("crdbexport.pipeline.answers._number", lambda question: 1)
    assert recalled(path) == [None] * 49 + [b"answer 49"]


def test_what_was_closed_says_so(answers: Answers) -> None:
    answers.close()
    with pytest.raises(StorageError, match="closed"):
        answers.keep("one", b"answer")


def test_any_number_of_threads_may_keep_answers(answers: Answers, path: Path) -> None:
    def work(thread: int) -> None:
        for number in range(50):
            answers.keep(f"{thread} {number}", b"%d" % number)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    answers.close()

    with closing(Answers(path)) as again:
        assert all(again.recall(f"{thread} {number}") == b"%d" % number for thread in range(4) for number in range(50))


def test_answers_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        keep_fifty(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_a_file_without_answers_nothing_is_left(path: Path) -> None:
    with closing(Answers(path)) as answers:
        answers.keep("one", b"answer")
        answers.forget()
    assert not path.exists()


def test_there_are_no_answers_where_there_is_no_file(path: Path) -> None:
    assert not has_answers(path)
