"""The process that forks those in which a sink may die: it has imported the kit and Arrow, and does nothing else.

So no fork of it has anything of what a sink's library has begun in another process: threads, connections, locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import warnings
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NoReturn

import msgspec
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401 (imported here once, and not in every fork; so is the next)

import crdbexport.testing.delivery  # noqa: F401
from crdbexport.testing.check import CheckFailedError
from crdbexport.testing.errands import Errand

READY = b"ready"
_POLL_SECONDS = 0.002
_LONGEST_MESSAGE = 10_000  # The pipe holds it, so that nobody need read before the child is gone.


def serve(errands_fd: int, ends_fd: int) -> None:
    """Fork a child for each errand and tell how it ended, until the other end of the pipe is closed."""
    errands, ends = Connection(errands_fd, writable=False), Connection(ends_fd, readable=False)
    with errands, ends, contextlib.suppress(EOFError, BrokenPipeError):
        ends.send_bytes(READY)
        while True:
            errand = pickle.loads(errands.recv_bytes())  # noqa: S301 (from the process that started this one)
            ends.send(_done(errand, errands, ends))


def _done(errand: Errand, errands: Connection, ends: Connection) -> tuple[bool, bytes]:
    """Whether the child was killed, and what it answered."""
    answers, answer = Pipe(duplex=False)
    with warnings.catch_warnings():
        # Newer interpreters warn of threads that a fork leaves behind; what was imported here has idle ones at most.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        for each in (errands, ends, answers):
            each.close()
        _work_and_end(errand, answer)
    with contextlib.suppress(OSError):  # It may be gone already.
        os.setpgid(child, child)
    answer.close()
    with answers:
        killed = _ended_by_kill(child, errands)
        # A pipe is readable at its end, too.
        with contextlib.suppress(EOFError):
            return killed, answers.recv_bytes() if answers.poll() else b""
    return killed, b""


def _ended_by_kill(child: int, errands: Connection) -> bool:
    """Wait for the child, or end it with all that it has started where nobody waits for it any more."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        # Nothing comes before the answer has gone out but the end of the pipe.
        if errands.poll(_POLL_SECONDS):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise EOFError


def _work_and_end(errand: Errand, answer: Connection) -> NoReturn:
    try:
        # Sinks that are made to fail are no news.
        logging.getLogger().addHandler(logging.NullHandler())
        body = msgspec.json.encode({"done": errand.begin()()})
    except BaseException as error:  # noqa: BLE001 (nothing of the child may go on as if it were the server)
        told = str(error) if isinstance(error, CheckFailedError) else f"{type(error).__name__}: {error}"
        body = msgspec.json.encode({"failed": told[:_LONGEST_MESSAGE]})
    answer.send_bytes(body)
    os._exit(0)
