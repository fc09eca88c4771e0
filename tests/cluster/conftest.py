"""Sessions and extractions against a sandbox over real HTTP, with retries that do not wait."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from crdbexport.cluster.connect import connected
from crdbexport.cluster.dialects.documented import DocumentedDialect
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.cluster.session import Session
from crdbexport.config import ExportConfig, Secret
from crdbexport.http import tls_context
from crdbexport.records import STREAMS, Gap
from crdbexport.report import RequestCounts
from crdbexport.retry import RetryPolicy
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.world import World
from crdbexport.selection import Selection
from tests.cluster.native_reading import Read, reader

T = TypeVar("T")

AT_ONCE = RetryPolicy(attempts=3, base_seconds=0.0, cap_seconds=0.0, retry_after_cap_seconds=0.0)
SESSION_HEADER = "x-cockroach-api-session"


loaded_once = functools.cache(tls_context)


@pytest.fixture(autouse=True)
def tls(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The system's authorities, loaded once for all tests: it takes 20 ms each time."""
    monkeypatch.setattr("crdbexport.cluster.connect.tls_context", loaded_once)
    return loaded_once(None)


@dataclass(frozen=True)
class Seen:
    """A request as it reached the server; `path` as it stood on the wire, `session` None without the header."""

    method: str
    path: str
    session: str | None
    body: bytes


class RecordingSandbox(Sandbox):
    """A sandbox that keeps what it was sent, in order."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, **options)
        self.seen: list[Seen] = []

    @property
    def paths(self) -> list[str]:
        """The requests in order, without the part of the path that all share."""
        return [each.path.removeprefix("/api/v2/") for each in self.seen]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        headers = Request(scope).headers
        path = scope["raw_path"].decode("ascii")
        self.seen.append(Seen(scope["method"], path, headers.get(SESSION_HEADER), message.get("body", b"")))
        waiting = [message]

        async def again() -> Any:
            return waiting.pop() if waiting else await receive()

        await super().__call__(scope, again, send)


class Record(Protocol):
    def __call__(self, *rules: Rule, world: World | None = None, **options: Any) -> RecordingSandbox: ...


@pytest.fixture
def record() -> Record:
    """Makes a sandbox that keeps what it was sent, with a small world and these faults."""

    def make(*rules: Rule, world: World | None = None, **options: Any) -> RecordingSandbox:
        return RecordingSandbox(world or World(databases=2, tables=3), faults=Faults(rules=rules), **options)

    return make


class Scripted(Protocol):
    def __call__(self, answers: Mapping[str, Any]) -> RecordingSandbox: ...


@pytest.fixture
def scripted(record: Record) -> Scripted:
    """Makes a sandbox that answers these paths (as percent-encoded) with this JSON, or with these bytes or status."""

    def make(answers: Mapping[str, Any]) -> RecordingSandbox:
        rules = []
        for path, answer in answers.items():
            content = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
            action = Status(answer) if isinstance(answer, int) else Body(content)
            rules.append(Rule(f"/api/v2/{path.replace('.', '[.]')}", action))
        return record(*rules, world=World(0, 0), require_login=False)

    return make


class InSession(Protocol):
    def __call__(
        self,
        url: str | tuple[str, ...],
        work: Callable[[Session], Awaitable[T]],
        *,
        counts: RequestCounts | None = None,
        retry: RetryPolicy = AT_ONCE,
        **changes: Any,
    ) -> T: ...


@pytest.fixture
def in_session() -> InSession:
    """Does some work within a session, as the sandbox's user unless a test changes that."""

    def run(
        url: str | tuple[str, ...],
        work: Callable[[Session], Awaitable[T]],
        *,
        counts: RequestCounts | None = None,
        retry: RetryPolicy = AT_ONCE,
        **changes: Any,
    ) -> T:
        config = a_config(url, **changes)

        async def main() -> T:
            async with connected(config, counts or RequestCounts(), retry) as session:
                return await work(session)

        return asyncio.run(main())

    return run


@pytest.fixture
def read(serve: Any, in_session: InSession) -> Read:
    """Extracts a native cluster, and checks that the account of the parts adds up."""
    return reader(serve, in_session)


def a_config(url: str | tuple[str, ...], **changes: Any) -> ExportConfig:
    urls = (url,) if isinstance(url, str) else url
    login = {} if {"no_login", "session"} & set(changes) else {"username": "demo", "password": Secret("demo")}
    return ExportConfig(**{"url": urls, "cluster": "c1", "timeout": 5.0, **login, **changes})


@dataclass
class Extraction:
    """What an extractor told: its rows by stream, in order, and the account of its work."""

    told: list[tuple[str, Any]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    counts: WalkCounts = field(default_factory=WalkCounts)
    requests: RequestCounts = field(default_factory=RequestCounts)

    def rows(self, stream: str) -> list[Any]:
        return [row for name, row in self.told if name == stream]

    @property
    def gap_reasons(self) -> dict[tuple[str, ...], str]:
        """The reasons of the gaps by part, database and table."""
        return {(gap.part, gap.database, *((gap.table,) if gap.table else ())): gap.reason for gap in self.gaps}


class Extract(Protocol):
    def __call__(
        self,
        url: str,
        *,
        streams: tuple[str, ...] = tuple(STREAMS),
        selection: Selection | None = None,
        **changes: Any,
    ) -> Extraction: ...


@pytest.fixture
def extract(in_session: InSession) -> Extract:
    """Extracts a cluster, and checks that the account of the parts adds up."""

    def run(
        url: str,
        *,
        streams: tuple[str, ...] = tuple(STREAMS),
        selection: Selection | None = None,
        include: tuple[str, ...] = (),
        **changes: Any,
    ) -> Extraction:
        result = Extraction()
        concurrency = changes.setdefault("concurrency", 4)

        async def work(session: Session) -> None:
            chosen = selection or Selection()
            extractor = Extractor(
                session, DocumentedDialect(), chosen, streams, concurrency, result.counts, result.gaps, include
            )
            async with aclosing(extractor.rows()) as told:
                async for stream, rows in told:
                    result.told.extend((stream, row) for row in rows)

        in_session(url, work, counts=result.requests, **changes)
        assert result.counts.details_wanted == result.counts.details_fetched + len(result.gaps)
        return result

    return run
