"""Processes of their own for what would hurt this one: to be killed, or to have no room for a file."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from crdbexport.testing.check import CheckFailedError, NotApplicableError

_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended: killed, or with an answer."""

    killed: bool
    answer: dict[str, Any]


def in_child(work: Callable[[], dict[str, Any]], seconds: float) -> ChildEnd:
    """Do `work` in a fork of this process; its answer must be JSON. Raises where that takes too long."""
    if not hasattr(os, "fork"):
        raise NotApplicableError("this platform cannot fork")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Newer interpreters warn of threads that a fork leaves behind; those of libraries are idle here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _work_and_end(work, writer)
    os.close(writer)
    try:
        killed = _ended_by_kill(child, seconds)
        with os.fdopen(os.dup(reader), "rb") as answer:
            body = answer.read()
    finally:
        os.close(reader)
    if not killed and not body:
        raise CheckFailedError("the process that ran the sink ended without a word")
    return ChildEnd(killed, msgspec.json.decode(body) if body else {})


def without_room(limit_bytes: int) -> None:
    """Let no file of this process grow beyond `limit_bytes`."""
    try:
        import resource
    except ImportError as error:
        raise NotApplicableError("this platform cannot limit the size of files") from error
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))


def _work_and_end(work: Callable[[], dict[str, Any]], writer: int) -> None:
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 (nothing of the child may go on as if it were the parent)
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.write(writer, msgspec.json.encode(answer))
    os._exit(0)


def _ended_by_kill(child: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise CheckFailedError(f"the process that ran the sink did not end within {seconds:g} s")
        time.sleep(_POLL_SECONDS)
