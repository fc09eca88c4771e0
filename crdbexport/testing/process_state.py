"""What a process has only one of, and a sink must leave alone: how it is, and watching it."""

from __future__ import annotations

import faulthandler
import locale
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crdbexport.testing.check import NotApplicableError

DESCRIPTORS = ("/proc/self/fd", "/dev/fd")


def process_state() -> dict[str, Any]:
    """What anybody in the process may depend on, apart from logging and warnings."""
    return {
        "working directory": Path.cwd(),
        "umask": _umask(),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": time.tzname,
        "signal handlers": {each: signal.getsignal(each) for each in signal.valid_signals()},
        "fault handler": faulthandler.is_enabled(),
        "default socket timeout": socket.getdefaulttimeout(),
        "recursion limit": sys.getrecursionlimit(),
        "module path": list(sys.path),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "standard streams": (sys.stdin, sys.stdout, sys.stderr),
    }


def logging_state() -> dict[str, Any]:
    """Everybody's logging and warnings."""
    root = logging.getLogger()
    return {
        "level of the root logger": root.level,
        "handlers of the root logger": list(root.handlers),
        "filters of the root logger": list(root.filters),
        "switch that disables logging": root.manager.disable,
        "class of loggers": logging.getLoggerClass(),
        "warnings filters": [each for each in warnings.filters if _is_for_all(each)],
        "way in which warnings are shown": warnings.showwarning,
    }


def open_files() -> set[tuple[str, str]]:
    """The descriptors that are open, each with what it leads to."""
    directory = next((each for each in DESCRIPTORS if Path(each).is_dir()), None)
    if directory is None:
        raise NotApplicableError("this platform does not tell which files are open")
    found = set()
    for each in Path(directory).iterdir():
        with suppress(OSError):  # The descriptor with which the directory was listed is closed again.
            found.add((each.name, str(each.readlink())))
    return found


@contextmanager
def printing_to(path: Path) -> Iterator[Callable[[], str]]:
    """What reaches standard output and standard error, of Python and of libraries below it, until the context ends."""
    quiet = logging.NullHandler()
    logging.getLogger().addHandler(quiet)  # Without any handler, warnings that are logged are printed.
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    streams = sys.stdout, sys.stderr
    with path.open("w", encoding="utf-8") as file:
        for number, _ in kept:
            os.dup2(file.fileno(), number)
        sys.stdout = sys.stderr = file
        try:
            yield lambda: path.read_text(encoding="utf-8", errors="replace")
        finally:
            sys.stdout, sys.stderr = streams
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            logging.getLogger().removeHandler(quiet)


@contextmanager
def temporary_directory(directory: Path) -> Iterator[Path]:
    """Have temporary files made in `directory`."""
    directory.mkdir()
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(directory)
    try:
        yield directory
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def _is_for_all(a_filter: tuple[Any, ...]) -> bool:
    """Whether a filter concerns warnings of anybody; libraries add some for their own when they are imported."""
    _, message, _, module, _ = a_filter
    return message is None and module is None


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
