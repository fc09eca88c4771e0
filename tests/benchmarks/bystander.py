"""Somebody else who uses the cluster meanwhile: ten requests a second, and how long each of them takes."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.benchmarks.slow_server import BYSTANDER

EVERY_SECONDS = 0.1


class Bystander:
    """Asks a slow server ten times a second for as long as the context lasts.

    It asks on time whether or not the earlier answers are there, so that a slow server is not asked less.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._samples: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_on_time()), name="bystander")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def latencies(self, first: float = 0.0, last: float = math.inf) -> list[float]:
        """The seconds that the answers to requests sent between two times of the monotonic clock took."""
        return [seconds for sent, seconds in self._samples if first <= sent <= last]

    async def _ask_on_time(self) -> None:
        begun = time.monotonic()
        asked: list[asyncio.Task[None]] = []
        while not self._over.is_set():
            asked.append(asyncio.create_task(self._ask()))
            await asyncio.sleep(begun + len(asked) * EVERY_SECONDS - time.monotonic())
        await asyncio.gather(*asked)

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        sent = time.monotonic()
        writer.write(f"GET {BYSTANDER} HTTP/1.1\r\nHost: bystander\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n{}")
        self._samples.append((sent, time.monotonic() - sent))
        writer.close()


def p99(values: Iterable[float]) -> float:
    """The value that one in a hundred exceeds; of fewer than a hundred, the largest."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
