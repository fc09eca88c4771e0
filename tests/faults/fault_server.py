"""A cluster of raw sockets that does to each request what a script says: only raw sockets can cut, reset and trickle.

Whatever no fault is written for is answered as a healthy cluster would, login and logout included.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias
from urllib.parse import parse_qs

API = "/api/v2"
USERNAME = "exporter"
PASSWORD = "cänary-pass/w&rd+%"
SESSION = "canary-session-"
STALL_SECONDS = 60.0
# Stands in scripted bytes for the address that nobody must ever contact.
ELSEWHERE = b"{elsewhere}"


class Ending(Enum):
    """How a connection goes on after a reply; without one it is closed."""

    KEEP = "the next request may come"
    RESET = "RST"
    STALL = "open, and silent"


# Bytes are sent, a number is a pause in seconds.
Step: TypeAlias = bytes | float | Ending
# What happens to a request, given the body with which a healthy cluster would answer.
Behaviour: TypeAlias = Callable[[bytes], Iterable[Step]]


@dataclass(frozen=True)
class Rule:
    """What happens at the paths that `at` matches: one behaviour for each request, and the last of them for ever if
    `lasting`. The path `connection` stands for a connection that has just been accepted. With `revokes`, every session
    ends first."""

    at: str
    does: Sequence[Behaviour | None]
    lasting: bool = False
    revokes: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it stood on the wire; `path` comes without `/api/v2` and without a query."""

    method: str
    path: str
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        found = re.search(rb"(?im)^%s:[ \t]*(.*?)\r?$" % name.encode(), self.head)
        return found[1].decode("latin-1") if found else None


def head(*headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *headers, "", "")).encode("latin-1")


def whole(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return head(f"Content-Length: {len(body)}", *headers, status=status) + body


@dataclass
class FaultServer:
    """Serves a world of bodies by path on loopback, in a thread of its own; use as a context manager.

    `struck` counts the requests at each path to which a rule happened, `requests` holds all of them.
    """

    world: Mapping[str, bytes]
    rules: Sequence[Rule] = ()
    elsewhere: bytes = b""
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    logins: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self._sessions: set[str] = set()
        self._hits: Counter[tuple[int, str]] = Counter()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fault-server", daemon=True)

    def __enter__(self) -> FaultServer:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def paths(self) -> Counter[str]:
        return Counter(each.path for each in self.requests)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            tasks.add(asyncio.ensure_future(self._connection(reader, writer)))

        server = await asyncio.start_server(accept, sock=self._listening, ssl=self.tls, limit=2**20)
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio turns Nagle's delay off only where the protocol is named; each answer would take 40 ms.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                greeting = self._behaviour("connection")
                going_on = greeting is None or await _act(greeting(b""), writer, self.elsewhere)
                while going_on:
                    going_on = await _act(self._reply(await self._request(reader)), writer, self.elsewhere)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader) -> Request:
        start = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = start.decode("latin-1").split(" ", 2)
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", start)
        body = await reader.readexactly(int(length[1])) if length else b""
        request = Request(method, target.removeprefix(API).partition("?")[0], start, body)
        self.requests.append(request)
        return request

    def _reply(self, request: Request) -> Iterable[Step]:
        behaviour = self._behaviour(request.path)
        status, body = self._healthy(request)
        return (behaviour or answer(status))(body)

    def _behaviour(self, path: str) -> Behaviour | None:
        for number, rule in enumerate(self.rules):
            if not re.fullmatch(rule.at, path):
                continue
            hit = self._hits[number, path]
            self._hits[number, path] += 1
            if hit < len(rule.does) or rule.lasting:
                self.struck[path] += 1
                if rule.revokes:
                    self._sessions.clear()
                return rule.does[min(hit, len(rule.does) - 1)]
        return None

    def _healthy(self, request: Request) -> tuple[str, bytes]:
        path, session = request.path, request.header("X-Cockroach-API-Session")
        if path == "/health":
            return "200 OK", b"{}"
        if path == "/login/":
            return self._login(request)
        if session not in self._sessions:
            return "401 Unauthorized", b'{"error": "unauthorized", "message": "valid session required"}'
        if path == "/logout/":
            self._sessions.discard(session)
            return "200 OK", b'{"logged_out": true}'
        if path not in self.world:
            return "404 Not Found", b"404 page not found\n"
        return "200 OK", self.world[path]

    def _login(self, request: Request) -> tuple[str, bytes]:
        if parse_qs(request.body.decode()) != {"username": [USERNAME], "password": [PASSWORD]}:
            return "401 Unauthorized", b"no such account\n"
        self.logins += 1
        self._sessions.add(f"{SESSION}{self.logins}")
        return "200 OK", b'{"session": "%s%d"}' % (SESSION.encode(), self.logins)


def answer(status: str = "200 OK", *headers: str) -> Behaviour:
    """The body of a healthy cluster, under another status or with more headers."""
    return lambda body: (whole(body, *headers, status=f"HTTP/1.1 {status}"), Ending.KEEP)


async def _act(steps: Iterable[Step], writer: asyncio.StreamWriter, elsewhere: bytes) -> bool:
    """Take the steps; whether the connection goes on."""
    for step in steps:
        if isinstance(step, bytes):
            writer.write(step.replace(ELSEWHERE, elsewhere))
            await writer.drain()
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif step is Ending.KEEP:
            return True
        elif step is Ending.STALL:
            await asyncio.sleep(STALL_SECONDS)
        elif step is Ending.RESET:
            # What has been sent must have left: a reset takes back what is still on its way.
            await asyncio.sleep(0.01)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
    return False
