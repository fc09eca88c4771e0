"""The sandbox on a port: in a thread for tests, in the foreground for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from crdbexport.errors import ConfigError

START_TIMEOUT_SECONDS = 10.0
STOP_TIMEOUT_SECONDS = 10.0
BACKLOG = 1024


class SandboxServer:
    """An ASGI application on a loopback port for as long as the context lasts. Port 0 takes a free one.

    Leaving the context closes every connection, also those that still wait for an answer.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        self._address = (host, port)

    @property
    def url(self) -> str:
        """Where it listens, without a path: `http://127.0.0.1:41234`."""
        return _url(self._socket)

    def __enter__(self) -> Self:
        self._socket = _listen(*self._address)
        self._server = _StoppableServer(_config(self._app))
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="crdbexport-sandbox", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(START_TIMEOUT_SECONDS):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join(STOP_TIMEOUT_SECONDS)
        self._socket.close()


def serve_forever(app: ASGIApp, host: str, port: int, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve in the foreground until Ctrl-C; `announce` gets the URL once it can be used.

    Raises ConfigError when the address cannot be had.
    """
    with _listen(host, port) as listening:
        if announce:
            announce(_url(listening))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(_config(app)).run([listening])


class _StoppableServer(uvicorn.Server):
    """A server that another thread stops, at once: uvicorn itself looks ten times a second, then waits."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready.set()
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # One turn of the loop, in which the connections learn that they are closed.
        waiting = list(self.server_state.tasks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named; each answer would take 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(_refusal(error, host, port)) from error
    return listening


def _refusal(error: OSError | OverflowError, host: str, port: int) -> str:
    if isinstance(error, OverflowError):
        return f"{port} is not a port; choose one from 1 to 65535 with --port"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use on {host}; choose another with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror}"


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
