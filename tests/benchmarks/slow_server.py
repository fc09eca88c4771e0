"""A server with latency, a knee, a rate limit and lost connections: `python -m tests.benchmarks.slow_server`.

A raw asyncio protocol, for it must not be what a measurement measures. It prints its port, and then serves until it is
ended. Clients do not pipeline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.benchmarks.workload import API, Workload

STEEPNESS = 1.1
"""By how much each request in flight above the knee multiplies the latency; Vector's tests bend it in this way."""
TALLY = "/tally"
BYSTANDER = "/bystander"
DATA = f"{API}/databases"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
END_OF_HEAD = b"\r\n\r\n"
REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Behaviour:
    """How the server treats its clients: above `knee` requests in flight its latency rises steeply, above `max_rps` in
    a second it answers 429, and every `drop_every`-th request loses its connection.
    """

    latency_seconds: float = 0.0
    knee: int | None = None
    max_rps: int | None = None
    drop_every: int | None = None

    def delay(self, in_flight: int) -> float:
        """The latency of a request that is one of so many in flight."""
        above = 0 if self.knee is None else max(0, in_flight - self.knee)
        return self.latency_seconds * STEEPNESS**above


@dataclass
class Tally:
    """What the server saw of the requests for data; times are those of the monotonic clock, which processes share."""

    requests: int = 0
    throttled: int = 0
    dropped: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    answered_at: array[float] = field(default_factory=lambda: array("d"))

    def summary(self) -> dict[str, float]:
        """The counts, and the rates of answers: over all of them, and over the later half alone."""
        times = self.answered_at
        later = times[len(times) // 2 :]
        return {
            "requests": self.requests,
            "answered": len(times),
            "throttled": self.throttled,
            "dropped": self.dropped,
            "most_in_flight": self.most_in_flight,
            "first": times[0] if times else 0.0,
            "last": times[-1] if times else 0.0,
            "rate": _rate(times),
            "settled_rate": _rate(later),
        }


def _rate(times: array[float]) -> float:
    spanned = times[-1] - times[0] if times else 0.0
    return (len(times) - 1) / spanned if spanned else 0.0


class Service:
    """What all connections share: the answers, the behaviour and the tally."""

    def __init__(self, workload: Workload, behaviour: Behaviour, clock: Callable[[], float] = time.monotonic) -> None:
        self.workload, self.behaviour, self.clock = workload, behaviour, clock
        self.tally = Tally()
        self._second, self._in_second = 0, 0

    def throttles(self) -> bool:
        """Whether this request is one too many in its second."""
        if self.behaviour.max_rps is None:
            return False
        second = int(self.clock())
        self._in_second = self._in_second + 1 if second == self._second else 1
        self._second = second
        return self._in_second > self.behaviour.max_rps

    def drops(self) -> bool:
        every = self.behaviour.drop_every
        return every is not None and self.tally.requests % every == 0

    def response(self, path: str) -> bytes:
        body = b"{}" if path == BYSTANDER else self.workload.answer(path)
        return rendered(404, b"{}") if body is None else rendered(200, body)


def rendered(status: int, body: bytes, header: str = "") -> bytes:
    """A whole HTTP response."""
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{header}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One client's connection; it answers a request after its delay, and reads the next one after that."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(END_OF_HEAD)
        if end < 0:
            return
        head = self._received[:end]
        length = CONTENT_LENGTH.search(head)
        whole = end + len(END_OF_HEAD) + (int(length[1]) if length else 0)
        if len(self._received) >= whole:
            self._received = self._received[whole:]
            self._take(head.split(b" ", 2)[1].decode("ascii"))

    def _take(self, path: str) -> None:
        service, tally = self._service, self._service.tally
        if path == TALLY:
            self._transport.write(rendered(200, json.dumps(tally.summary()).encode()))
            return
        counts = path.startswith(DATA)
        tally.requests += counts
        if counts and service.drops():
            tally.dropped += 1
            self._transport.abort()
        elif counts and service.throttles():
            tally.throttled += 1
            self._transport.write(rendered(429, b"{}", "Retry-After: 1\r\n"))
        else:
            self._answer_later(path, counts=counts)

    def _answer_later(self, path: str, *, counts: bool) -> None:
        tally = self._service.tally
        tally.in_flight += 1
        tally.most_in_flight = max(tally.most_in_flight, tally.in_flight)
        delay = self._service.behaviour.delay(tally.in_flight)
        if delay:
            self._loop.call_later(delay, self._answer, path, counts)
        else:
            self._answer(path, counts)

    def _answer(self, path: str, counts: bool) -> None:
        tally = self._service.tally
        tally.in_flight -= 1
        if not self._transport.is_closing():
            self._transport.write(self._service.response(path))
            if counts:
                tally.answered_at.append(self._service.clock())


async def listening(service: Service) -> tuple[asyncio.Server, int]:
    """Serve on a free loopback port, and tell which."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service), "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def serve(service: Service) -> None:
    """Print the port, and serve until the process is ended."""
    server, port = await listening(service)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


def arguments(workload: tuple[int, int], behaviour: Behaviour) -> list[str]:
    """The command line that gives this server."""
    given = {"databases": workload[0], "tables": workload[1], **vars(behaviour)}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", type=int, default=50)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--latency-seconds", type=float, default=0.0)
    for name in ("--knee", "--max-rps", "--drop-every"):
        parser.add_argument(name, type=int)
    given = vars(parser.parse_args())
    workload = Workload(given.pop("databases"), given.pop("tables"))
    asyncio.run(serve(Service(workload, Behaviour(**given))))


if __name__ == "__main__":
    main()
