"""Whole runs in simulated time: a sandbox in this process that dies as a test says, and no wait that is real."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from crdbexport.cluster.connect import connected
from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.config import ExportConfig
from crdbexport.errors import CrdbExportError
from crdbexport.http import HttpClient
from crdbexport.records import STREAMS, Gap
from crdbexport.report import RequestCounts
from crdbexport.sandbox.base import ClusterApp
from crdbexport.selection import Selection

T = TypeVar("T")
Death = Callable[[httpx.Request], Coroutine[Any, Any, httpx.Response]]


class _Jump(selectors.SelectSelector):
    """Waits for nothing: the clock goes on by what would have been waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left that could happen"
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that is due."""

    def __init__(self) -> None:
        self._clock = _Jump()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def simulated(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)


def now() -> float:
    return asyncio.get_running_loop().time()


async def refuses(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


async def stalls_the_handshake(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(request.extensions["timeout"]["connect"])
    raise httpx.ConnectTimeout("the handshake timed out")


async def never_answers(request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError("waited for ever, and longer")


def answers(status: int, headers: Mapping[str, str] | None = None) -> Death:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(b""))

    return answer


@dataclass
class Server(httpx.AsyncBaseTransport):
    """Answers as the sandbox does until `lives_for` requests have come, and from then on as its death has it."""

    app: ClusterApp
    death: Death = refuses
    lives_for: float = float("inf")
    away_seconds: float = float("inf")
    asked: list[str] = field(default_factory=list)
    died_at: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(raw_path=request.extensions["target"])
        self.asked.append(request.url.path.removeprefix("/api/v2/"))
        if len(self.asked) > self.lives_for:
            self.died_at = now() if self.died_at is None else self.died_at
            if now() - self.died_at < self.away_seconds:
                return await self.death(request)
        return await httpx.ASGITransport(self.app).handle_async_request(request)  # type: ignore[arg-type]

    @property
    def asked_when_dead(self) -> int:
        return max(0, len(self.asked) - int(self.lives_for))


@dataclass
class Run:
    """What became of reading the whole cluster."""

    server: Server
    gaps: list[Gap] = field(default_factory=list)
    walk: WalkCounts = field(default_factory=WalkCounts)
    requests: RequestCounts = field(default_factory=RequestCounts)
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def seconds_when_dead(self) -> float:
        assert self.server.died_at is not None, "the server never died"
        return self.seconds - self.server.died_at


def read_whole(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Run:
    """Log in, tell the dialect, read everything, log out: as a run does it, with its default settings."""

    class InProcess(HttpClient):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._carrier = server

    monkeypatch.setattr("crdbexport.cluster.connect.HttpClient", InProcess)
    random.seed(len(server.asked) + 1)
    run = Run(server)
    simulated(_read_into(run, ExportConfig(**{"url": ("http://cluster.test",), "cluster": "c1", **changes})))
    return run


async def _read_into(run: Run, config: ExportConfig) -> None:
    try:
        async with connected(config, run.requests) as session:
            dialect = await detected(session, config.dialect)
            extractor = Extractor(session, dialect, Selection(), STREAMS, config.concurrency, run.walk, run.gaps)
            async with aclosing(extractor.rows()) as rows:
                async for _ in rows:
                    pass
    except CrdbExportError as error:
        run.error = error
    run.seconds = now()
