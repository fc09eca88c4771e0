"""The one door to httptools, the parser of Node.js (llhttp): one connection to a server, and what it answers."""

from __future__ import annotations

import asyncio
import ipaddress
import selectors
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

import httptools
import httpx

MAX_HEADER_BYTES = 128 * 1024
# More of a body than this waits in the kernel, not here.
HELD_BYTES = 256 * 1024
# As RFC 8305 has it: how long one of a host's addresses may be silent before the next is tried beside it.
NEXT_ADDRESS_SECONDS = 0.25
INFORMATIONAL = range(100, 200)
SWITCHING_PROTOCOLS = 101
UNASKED = "an answer that nobody asked for"
HUNG_UP = "the server hung up"
# Neither takes a descriptor; the second is for systems that lack the first.
Poll = getattr(selectors, "PollSelector", selectors.SelectSelector)
# So much of a request may wait below TLS, where nobody can see whether it was sent.
UNSEEN_BYTES = 64 * 1024


class Origin(NamedTuple):
    """Where a connection leads; `tls` says whether it is encrypted."""

    host: str
    port: int
    tls: bool


async def connected(origin: Origin, tls: ssl.SSLContext, seconds: float) -> Connection:
    """A new connection; raises `httpx.ConnectTimeout` after so many seconds, and `httpx.ConnectError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            several = await _has_several_addresses(origin)
            _, connection = await loop.create_connection(
                lambda: Connection(origin),
                origin.host,
                origin.port,
                ssl=tls if origin.tls else None,
                # A race that is cancelled at its end leaves the winner's socket open: none where one runs alone.
                happy_eyeballs_delay=NEXT_ADDRESS_SECONDS if several else None,
            )
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"no connection within {seconds:g} s") from error
    except OSError as error:
        raise httpx.ConnectError(str(error) or HUNG_UP) from error
    return connection


async def _has_several_addresses(origin: Origin) -> bool:
    try:
        ipaddress.ip_address(origin.host)
    except ValueError:
        lookup = asyncio.get_running_loop().getaddrinfo
        return len(await lookup(origin.host, origin.port, type=socket.SOCK_STREAM)) > 1
    return False


class Connection(asyncio.Protocol):
    """Takes one request at a time. What a server says without being asked ends the connection.

    `reusable` says whether the last answer is whole, was all that came, and leaves the connection open. Raises
    `httpx.RemoteProtocolError` for what is no HTTP, and `httpx.ReadError` where the server hangs up.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.reusable = False
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._closed = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.TransportError | None = None
        self._asked = self._is_large = False
        self._poll: selectors.BaseSelector | None = None
        self._forget()

    def _forget(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: deque[bytes] = deque()
        self._held = self._head_bytes = 0
        self._paused = self._has_head = self._is_whole = False

    async def ask(self, request: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Send a request; returns the status and the headers of the answer."""
        self._forget()
        self._asked, self.reusable = True, False
        self._is_large = self.origin.tls and len(request) > UNSEEN_BYTES
        self._transport.write(request)
        while not self._has_head:
            await self._more()
        return self._status, self._headers

    async def body(self) -> AsyncIterator[bytes]:
        """The body of the answer, as it comes."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._held -= len(chunk)
                yield chunk
            if self._is_whole:
                return
            await self._more()

    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer, not even an end: the loop may not have had the time to look."""
        if self._poll is None:
            self._poll = Poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
        return not self._transport.is_closing() and not self._poll.select(0)

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop is loop

    def close(self) -> None:
        self.reusable = False
        self._transport.abort()

    async def closed(self) -> None:
        await asyncio.shield(self._closed)

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: httpx.TransportError) -> None:
        # An answer that is whole stays so, whatever comes after it.
        self.reusable = False
        if not self._is_whole:
            self._error = error
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (a stream's)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._is_whole:
            self._fail(httpx.RemoteProtocolError(UNASKED))
            return
        held = self._held
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"no HTTP/1.1 answer ({error})"))
        # What brings no body belongs to a head, or to the headers behind a body, which the parser holds.
        self._head_bytes = 0 if self._held > held else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEADER_BYTES and not self._is_whole:
            self._fail(httpx.RemoteProtocolError(f"headers of more than {MAX_HEADER_BYTES} bytes"))
        elif self._held > HELD_BYTES and not self._paused and not self._is_whole:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if not self._is_whole and self._error is None:
            if exc is None and self._has_head and not self._has_length():
                self._is_whole = True
            else:
                self._error = httpx.ReadError(HUNG_UP)
                self._error.__cause__ = exc
        self._wake()
        self._closed.set_result(None)

    def _has_length(self) -> bool:
        return any(
            name.lower() == b"content-length" or (name.lower() == b"transfer-encoding" and b"chunked" in value.lower())
            for name, value in self._headers
        )

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise httpx.RemoteProtocolError(UNASKED)  # Which ends the parser's work.

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind a body is of no use to anybody here.
        if not self._has_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status == SWITCHING_PROTOCOLS:
            raise httpx.RemoteProtocolError(UNASKED)
        self._has_head = self._status not in INFORMATIONAL

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._held += len(chunk)

    def on_message_complete(self) -> None:
        if not self._has_head:
            self._headers.clear()
            return
        self._is_whole = True
        unsent = self._is_large or self._transport.get_write_buffer_size()
        self.reusable = self._parser.should_keep_alive() and not unsent and not self._transport.is_closing()
