"""strace at a run: which calls of the system it makes between two points, and a signal or an error at one of them.

So the writes of SQLite and Arrow are reached, which Python never sees.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ATTACHED = "attached"
_CALL = re.compile(
    r'(?P<thread>\d+)\s+(?P<name>\w+)\((?:\d+<(?P<path>[^>]*)>|(?:AT_FDCWD<[^>]*>, )?"(?P<named>[^"]*)")(?P<rest>.*)'
)
_TEXT = re.compile(r', "(?P<text>(?:[^"\\]|\\.)*)"')


def usable() -> bool:
    """Whether strace is here and may look at a process that is not its own child."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        try:
            tracer = attached(sleeping.pid, Path(os.devnull))
        except RuntimeError:
            return False
        finally:
            sleeping.kill()
        tracer.communicate()
        return True


def attached(process: int, log: Path, *options: str) -> subprocess.Popen[str]:
    """strace at all threads of the process, those to come included; RuntimeError where it is not let."""
    command = ["strace", "-f", "-y", "-s", "300", "-o", str(log), "-p", str(process), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if ATTACHED not in said:
        tracer.communicate()
        raise RuntimeError(f"strace: {said}")
    return tracer


def at_call(name: str, number: int, act: str, *, lasting: bool = False) -> tuple[str, ...]:
    """The options that let the so many-th call of this name, on whatever thread, come to `act`, or all from it on."""
    return ("-e", f"trace={name}", "-e", f"inject={name}:{act}:when={number}{'+' if lasting else ''}")


@contextmanager
def at_waiting(place: Path, *options: str) -> Iterator[Callable[[int], None]]:
    """What traces a run, told its process id, as soon as it waits in `place`; and then lets it go."""
    tracers = []

    def begun(process: int) -> None:
        while not (place / "waiting").exists():
            if not Path(f"/proc/{process}").exists():
                return
            time.sleep(0.002)
        tracers.append(attached(process, place / "trace", *options))
        (place / "go").touch()

    yield begun
    for tracer in tracers:
        tracer.communicate()


class Call(NamedTuple):
    """A call of the system: the point before it on its thread, its name, and the how many-th since the point it is."""

    point: str
    name: str
    number: int


def calls(place: Path, of: str) -> list[Call]:
    """The calls that a traced run has made on files with `of` in their paths."""
    found: list[Call] = []
    points: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for line in (place / "trace").read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        path = call["path"] or call["named"] or ""
        if path == str(place / "points") and (text := _TEXT.search(call["rest"])):
            points[call["thread"]] = text["text"].encode().decode("unicode_escape").rstrip("\n")
        elif point := points.get(call["thread"]):
            counts[point, call["name"]] += 1
            if of in path:
                found.append(Call(point, call["name"], counts[point, call["name"]]))
    return found
