"""The points of a run at which it can be killed, or a file call can be made to fail: each with a name of its own.

A point is what happens and to what, and how often that has happened before: `os.rename lake/_staging/... #1`. Names
do not depend on how the threads of a run interleave, so that a point of one run is found again in the next.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crdbexport.http import HttpClient
from crdbexport.pipeline.answers import Answers
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.lane import Lane
from crdbexport.pipeline.spool import Spool

# What the interpreter audits of files, by the position of the paths among the arguments.
AUDITED = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.listdir": (0,),
    "os.scandir": (0,),
    "os.truncate": (0,),
    "fcntl.flock": (0,),
    "sqlite3.connect": (0,),
    "shutil.rmtree": (0,),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
READING = ("SELECT", "PRAGMA user", "PRAGMA app")
JOURNALLED = ("keep_document", "keep_sink")
ANSWERED = ("keep", "forget")
Reached = Callable[[str, str], None]


def _named(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "open" and arguments[2] & WRITING:
        return "open for writing"
    if event == "fcntl.flock" and arguments[1] & fcntl.LOCK_UN:
        return "unlock"
    return event


class Points:
    """Tells `reached` of each point below `place`, as `what`, `point`; on the thread that comes to it, just before."""

    def __init__(self, place: Path, reached: Reached) -> None:
        self._place, self._reached = f"{place}/", reached
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    def reach(self, what: str, detail: str) -> None:
        name = f"{what} {detail}"
        self._reached(what, f"{name} #{next(self._numbers[name])}")

    def install(self) -> None:
        """For good: an audit hook cannot be taken out again, so this is for a process that is about to end."""
        sys.addaudithook(self._audit)
        self._wrap_files()
        self._wrap_database()
        for name in JOURNALLED:
            self._wrap(Journal, name, lambda args: str(args[0])[:120])
        for name in ANSWERED:
            self._wrap(Answers, name, lambda args: str(args[0])[:120] if args else "")
        self._wrap(Spool, "append", lambda args: str(args[0]))
        for name in ("seal", "sync"):
            self._wrap(Spool, name, lambda args: "")
        self._wrap_sinks()
        self._wrap_requests()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        # A descriptor that is made a file object is no call of the system.
        if event in AUDITED and not (event == "open" and isinstance(arguments[0], int)):
            paths = [self._shown(arguments[place]) for place in AUDITED[event]]
            if all(paths):
                self.reach(_named(event, arguments), " -> ".join(map(str, paths)))

    def _shown(self, path: Any) -> str | None:
        """The path as seen from the place; None where it is elsewhere."""
        if isinstance(path, int):
            try:
                path = Path(f"/proc/self/fd/{path}").readlink()
            except OSError:
                return None
        text = os.fsdecode(path)
        return text.removeprefix(self._place) if text.startswith(self._place) else None

    def _wrap(self, owner: Any, name: str, detail: Callable[[tuple[Any, ...]], str]) -> None:
        """Have a point before each call, and one after it."""
        original = getattr(owner, name)

        def wrapped(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {name}", detail(args))
            result = original(this, *args, **kwargs)
            self.reach(f"after {name}", detail(args))
            return result

        setattr(owner, name, wrapped)

    def _wrap_files(self) -> None:
        def fsync(descriptor: int) -> None:
            # A killed process loses nothing that it had not synced.
            self.reach("fsync", self._shown(descriptor) or "elsewhere")

        reach, shown = self.reach, self._shown

        class Written(io.BufferedWriter):
            def write(self, data: Any) -> int:
                reach("write", shown(self.fileno()) or "elsewhere")
                return super().write(data)

        fdopen = os.fdopen
        os.fsync = fsync
        os.fdopen = lambda descriptor, mode="r", *args, **kwargs: (
            Written(io.FileIO(descriptor, "wb")) if mode == "wb" else fdopen(descriptor, mode, *args, **kwargs)
        )

    def _wrap_database(self) -> None:
        points, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                points.reach("before execute", sql[:60])
                cursor = super().execute(sql, *args)
                if not sql.startswith(READING):
                    points.reach("after execute", sql[:60])
                return cursor

            def executescript(self, script: str) -> sqlite3.Cursor:
                points.reach("before executescript", script.split()[1])
                return super().executescript(script)

            def __exit__(self, *raised: Any) -> Any:
                points.reach("before end of transaction", "")
                result = super().__exit__(*raised)
                points.reach("after end of transaction", "")
                return result

        sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)

    def _wrap_sinks(self) -> None:
        original = Lane._call

        def called(lane: Lane, method: str, **arguments: Any) -> Any:
            self.reach(f"before {method}", lane.sink.name)
            result = original(lane, method, **arguments)
            self.reach(f"after {method}", lane.sink.name)
            return result

        Lane._call = called

    def _wrap_requests(self) -> None:
        original = HttpClient.send

        async def send(client: HttpClient, method: str, url: str, **others: Any) -> Any:
            path = url.split("/", 3)[-1] + str(others.get("below", ""))
            self.reach("before request", f"{method} {path}")
            reply = await original(client, method, url, **others)
            self.reach("after reply", f"{method} {path}")
            return reply

        HttpClient.send = send
