"""Carries the requests of httpx over kept connections: fewer cycles a request, at any number of connections.

httpx's own pool looks at every connection for each request, and takes an answer that nobody asked for as that of the
next request.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable

import httpx

from crdbexport.connection import Connection, Origin, connected

KEPT_SECONDS = 15.0
PORTS = {"http": 80, "https": 443}
ALL_PORTS = range(1, 65536)
# Nothing else may stand in a head: a line's end in a header would start another header, or another request.
HEAD = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*)*")


class Carrier(httpx.AsyncBaseTransport):
    """A pool of at most `connections`. It follows nothing, decodes nothing, sends nothing twice, and keeps no cookies.

    Certificates are verified with `tls`. A request may name its path and query by the extension `target`; of the
    timeouts in its extensions the one to connect is kept. Raises what httpx raises.
    """

    def __init__(self, *, connections: int, tls: ssl.SSLContext) -> None:
        self._connections, self._tls = connections, tls
        self._places = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._busy = 0
        self._ended = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        head = _head(request)
        await self._places.acquire()
        self._busy += 1
        connection: Connection | None = None
        try:
            connection = self._kept(request.url) or await self._new(request)
            status, headers = await connection.ask(head + request.content)
        except BaseException:
            self._let_go(connection)
            raise
        response = httpx.Response(status, headers=headers, stream=_Body(connection, self._let_go))
        response.headers.encoding = "latin-1"  # Or httpx guesses, anew for each header that is looked for.
        return response

    async def aclose(self) -> None:
        self._ended = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        for connection in idle:
            await connection.closed()

    def _kept(self, url: httpx.URL) -> Connection | None:
        """The connection to this origin that was used last: its server is the least likely to have closed it."""
        origin, loop = _origin(url), asyncio.get_running_loop()
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].origin == origin:
                connection = self._idle.pop(at)
                fresh = connection.belongs_to(loop) and loop.time() - connection.idle_since < KEPT_SECONDS
                if fresh and connection.reusable and connection.is_quiet():
                    return connection
                connection.close()
        return None

    async def _new(self, request: httpx.Request) -> Connection:
        # This one counts as busy already; idle ones to elsewhere must not come on top.
        while self._idle and len(self._idle) + self._busy > self._connections:
            self._idle.pop(0).close()
        return await connected(_origin(request.url), self._tls, request.extensions["timeout"]["connect"])

    def _let_go(self, connection: Connection | None) -> None:
        self._places.release()
        self._busy -= 1
        if connection is None:
            return
        if connection.reusable and not self._ended:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, connection: Connection, let_go: Callable[[Connection], None]) -> None:
        self._connection, self._let_go, self._is_held = connection, let_go, True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.body()

    async def aclose(self) -> None:
        """What was read to its end leaves its connection to the next request; any other connection is closed."""
        if self._is_held:
            self._is_held = False
            self._let_go(self._connection)


def _head(request: httpx.Request) -> bytes:
    target = request.extensions.get("target", request.url.raw_path)
    headers = [b"%s: %s" % header for header in request.headers.raw]
    head = b"\r\n".join([b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target), *headers])
    if not HEAD.fullmatch(head) or head.count(b"\r\n") > len(headers):
        raise httpx.LocalProtocolError("a header or the path holds what HTTP cannot carry")
    return head + b"\r\n\r\n"


def _origin(url: httpx.URL) -> Origin:
    if url.scheme not in PORTS:
        raise httpx.UnsupportedProtocol("the URL must begin with http:// or https://")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not url.raw_host or port not in ALL_PORTS:
        raise httpx.InvalidURL("no such host or port")
    return Origin(url.raw_host.decode("ascii"), port, url.scheme == "https")
