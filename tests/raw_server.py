"""A server of raw sockets, which alone can cut, reset, trickle, fall silent and answer twice."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SILENCE_SECONDS = 30.0


@dataclass
class RawServer:
    """What reached a raw server: so many connections, and the heads of requests as they stood on the wire."""

    port: int
    accepted: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_server(
    script: Script, tls: ssl.SSLContext | None = None, *, keeps: bool = False
) -> AsyncIterator[RawServer]:
    """Reads the head of one request a connection, runs the script, closes; with `keeps`, it goes on to the next one."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                server.accepted += 1
                while True:
                    server.heads.append(await reader.readuntil(b"\r\n\r\n"))
                    await script(reader, writer)
                    if not keeps:
                        break
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    with a_socket() as listening:
        server = RawServer(listening.getsockname()[1])
        async with await asyncio.start_server(accept, sock=listening, ssl=tls):
            try:
                yield server
            finally:
                for task in list(connections):
                    task.cancel()
                await asyncio.gather(*connections, return_exceptions=True)


@contextmanager
def a_socket() -> Iterator[socket.socket]:
    # asyncio turns Nagle's delay off only where the protocol is named; each answer would take 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def says(*pieces: bytes, every_seconds: float = 0.0) -> Script:
    """Sends the pieces one by one, then closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_seconds)

    return script


def then_silence(*pieces: bytes) -> Script:
    """Sends the pieces and keeps the connection open."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(reader, writer)
        await asyncio.sleep(SILENCE_SECONDS)

    return script


def head(*headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *headers, "", "")).encode()


def whole(body: bytes, *headers: str) -> bytes:
    return head(f"Content-Length: {len(body)}", *headers) + body
