"""Work side by side, results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    items: AsyncIterable[T], work: Callable[[T], Awaitable[R]], *, window: int
) -> AsyncGenerator[R, None]:
    """The results of `work` in the order of `items`, at most `window` of them begun and not yet handed on."""
    begun: deque[asyncio.Future[R]] = deque()
    try:
        async for item in items:
            begun.append(asyncio.ensure_future(work(item)))
            if len(begun) >= window:
                yield await begun.popleft()
        while begun:
            yield await begun.popleft()
    finally:
        for future in begun:
            future.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
