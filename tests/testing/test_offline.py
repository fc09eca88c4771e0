"""A process without a network has none for anybody in it, and everything else as before."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crdbexport.testing.children import in_child
from crdbexport.testing.offline import can_go_offline, go_offline

pytestmark = pytest.mark.slow


def tries() -> dict[str, int]:
    """What each way to a socket comes to: 0, or an error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    below = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    return {
        "inet": opened(socket.AF_INET),
        "inet6": opened(socket.AF_INET6),
        "unix": opened(socket.AF_UNIX),
        "below Python": 0 if below >= 0 else ctypes.get_errno(),
        "on a thread": on_a_thread(lambda: opened(socket.AF_INET)),
    }


def opened(family: int) -> int:
    try:
        socket.socket(family).close()
    except OSError as error:
        return error.errno or -1
    return 0


def on_a_thread(call: Callable[[], int]) -> int:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    thread.join()
    return answers[0]


def offline() -> dict[str, Any]:
    go_offline()
    # A process that is started inherits it.
    reader, writer = os.pipe()
    if os.fork() == 0:
        with suppress(BaseException):
            os.write(writer, str(opened(socket.AF_INET)).encode())
        os._exit(0)
    os.close(writer)
    return {**tries(), "in a child": int(os.read(reader, 10)), "files": len(list(Path.cwd().iterdir()))}


def test_nobody_in_a_process_without_a_network_has_one() -> None:
    assert can_go_offline()
    told = in_child(offline, 30.0).answer
    assert told.pop("files") > 0
    assert told.pop("unix") == 0
    assert set(told.values()) == {errno.ENETUNREACH}
    assert len(told) == 5


def test_other_processes_keep_theirs() -> None:
    in_child(offline, 30.0)
    assert set(in_child(tries, 30.0).answer.values()) == {0}
    assert set(tries().values()) == {0}
