"""Runs in processes of their own, a fork each, so that a run that is killed costs no start of an interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.proof.doomed import Ended, Job

ROOT = Path(__file__).parents[2]


class ForkServer:
    """Makes attempts, one at a time, for as long as the context lasts."""

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OPENBLAS_NUM_THREADS": "1",  # A fork copies no threads, so none shall be there.
            "SSL_CERT_FILE": os.devnull,  # The system's authorities take longer to read than a small cluster.
            "SSL_CERT_DIR": os.devnull,
        }
        command = [sys.executable, "-m", "tests.proof.doomed"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def attempt(self, job: Job, begun: Callable[[int], None] = lambda process: None) -> Ended:
        """Make one attempt; `begun` is told the process id while it works."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        begun(msgspec.json.decode(self._line(), type=int))
        return msgspec.json.decode(self._line(), type=Ended)

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line: bytes = self._process.stdout.readline()
        assert line, "the fork server has ended"
        return line
