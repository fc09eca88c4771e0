"""Processes of their own for what would hurt this one: to be killed, or to have no room for a file.

They are forked by a server (`fork_server.py`), and not from this process: a library with threads of its own, which a
sink has used here, would hang in a fork of it. What a process is to do is pickled (`errands.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

import msgspec

from crdbexport.testing.check import CheckFailedError, NotApplicableError
from crdbexport.testing.errands import Work, packed

START_SECONDS = 60.0
"""How long the server may take to import the kit."""
_END_SECONDS = 5.0
# The module path is given, so that the server runs the same crdbexport, wherever pytest has found it.
_SERVE = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from crdbexport.testing.fork_server import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended: killed, or with an answer."""

    killed: bool
    answer: dict[str, Any]

    @property
    def status(self) -> str:
        """What became of a delivery."""
        return "killed" if self.killed else str(self.answer["status"])

    @property
    def told(self) -> str:
        """What became of a delivery, and its error."""
        return ": ".join(filter(None, (self.status, self.answer.get("error"))))


def in_child(work: Work, seconds: float) -> ChildEnd:
    """Do `work`, which must pickle, in a process that has imported nothing but the kit; its answer must be JSON.

    The environment, the working directory and the module path are those of this process. Raises `CheckFailedError`
    where that takes too long, and for what `work` raises.
    """
    if not hasattr(os, "fork"):
        raise NotApplicableError("this platform cannot fork")
    killed, body = _servers.ended(packed(work), seconds)
    if killed:
        return ChildEnd(True, {})
    if not body:
        raise CheckFailedError("the process that ran the sink ended without a word")
    answer = msgspec.json.decode(body)
    if "failed" in answer:
        raise CheckFailedError(answer["failed"])
    return ChildEnd(False, answer["done"])


def without_room(limit_bytes: int) -> None:
    """Let no file of this process grow beyond `limit_bytes`."""
    try:
        import resource
    except ImportError as error:
        raise NotApplicableError("this platform cannot limit the size of files") from error
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))


class _Server:
    """The process that forks children, one at a time. It ends, and ends its child, when `_errands` is closed: at the
    latest with this process, however that ends.
    """

    def __init__(self) -> None:
        errands, self._errands = Pipe(duplex=False)
        self._ends, ends = Pipe(duplex=False)
        with errands, ends:
            numbers = errands.fileno(), ends.fileno()
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, and code that stands above)
                [sys.executable, "-c", _SERVE, *map(str, numbers), *sys.path],
                # A fork copies no threads, so the server shall have none: NumPy's would start with its import.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=numbers,
                start_new_session=True,  # A Ctrl-C is for this process alone.
            )

    def ended(self, errand: bytes, seconds: float) -> tuple[bool, bytes]:
        """Whether the child was killed, and what it answered."""
        self._errands.send_bytes(errand)
        if not self._ends.poll(seconds):
            raise CheckFailedError(f"the process that ran the sink did not end within {seconds:g} s")
        killed, body = self._ends.recv()
        return killed, body

    def ready(self) -> bool:
        return self._ends.poll(START_SECONDS) and bool(self._ends.recv_bytes())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._errands.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._ends.close()


class _Servers:
    """The server of this process, started when it is first needed, and anew where it could not go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Server | None = None

    def ended(self, errand: bytes, seconds: float) -> tuple[bool, bytes]:
        with self._lock:
            try:
                return self._server().ended(errand, seconds)
            except BaseException as error:
                self.close()
                if isinstance(error, EOFError | BrokenPipeError):
                    raise CheckFailedError("the process that starts those for the sink has ended") from error
                raise

    def close(self) -> None:
        server, self._running = self._running, None
        if server is not None:
            server.close()

    def _server(self) -> _Server:
        if self._running is None:
            self._running = _Server()
            atexit.register(self.close)
            if not self._running.ready():
                raise EOFError
        return self._running


_servers = _Servers()
