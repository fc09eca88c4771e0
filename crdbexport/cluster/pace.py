"""How quickly requests follow each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Sleep = Callable[[float], Awaitable[None]]


@dataclass
class Pace:
    """Spaces requests evenly, at most `per_second`; `hold` stops them all for a while."""

    per_second: float | None
    clock: Callable[[], float]
    sleep: Sleep
    _next: float = 0.0

    async def turn(self) -> None:
        if not self._next and not self.per_second:
            return
        now = self.clock()
        mine = max(self._next, now)
        if self.per_second:
            self._next = mine + 1 / self.per_second
        if mine > now:
            await self.sleep(mine - now)

    def hold(self, seconds: float) -> None:
        self._next = max(self._next, self.clock() + seconds)
