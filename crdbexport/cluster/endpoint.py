"""What is asked of a server: a method, and a path below the base URL."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode


@dataclass(frozen=True)
class Endpoint:
    """A method and a path below the base URL, as segments; each segment is percent-encoded as a whole.

    `query` is for numbers alone, and is sent but never shown. `like` names the endpoints that differ in more than every
    second segment and yet are of one kind.
    """

    method: str
    segments: tuple[str, ...]
    trailing_slash: bool = False
    query: tuple[tuple[str, int], ...] = ()
    like: str = field(default="", compare=False)

    @property
    def kind(self) -> Hashable:
        """What endpoints have in common that differ in names alone: their latencies compare."""
        return self.like or self.segments[::2]

    @property
    def path(self) -> str:
        return "/".join(map(_encoded, self.segments)) + ("/" if self.trailing_slash else "")

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@functools.lru_cache(maxsize=1024)
def _encoded(segment: str) -> str:
    return quote(segment, safe="")


HEALTH = Endpoint("GET", ("health",))
