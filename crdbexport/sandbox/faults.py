"""Which requests go wrong, and how: at a seeded rate, or exactly where a rule says."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

NEVER_BY_RATE = frozenset({"/api/v2/health", "/api/v2/login", "/api/v2/logout"})


@dataclass(frozen=True)
class Status:
    """Answer with this status. Without a `body` of its own, the answer is an error as the API words it."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Body:
    """Answer 200 with this body."""

    content: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Truncate:
    """Answer as usual, but with the first bytes of the body only (None: half of it), its length to match."""

    keep_bytes: int | None = None


@dataclass(frozen=True)
class Delay:
    """Answer as usual, later."""

    seconds: float


@dataclass(frozen=True)
class Expire:
    """End all sessions, then answer 401."""


@dataclass(frozen=True)
class Disconnect:
    """Close the connection in the middle of the answer."""


Action = Status | Body | Truncate | Delay | Expire | Disconnect

BY_RATE: tuple[Action, ...] = (
    Status(500),
    Status(500),
    Status(503),
    Status(503),
    Status(429, {"Retry-After": "0"}),
    Status(429, {"Retry-After": "1"}),
    Truncate(),
    Truncate(),
)


@dataclass
class Rule:
    """An action for the raw paths, as percent-encoded, that the regular expression `path` matches in full.

    `hits` holds the requests of one path that it applies to, counted from 1: `{1}`, `range(1, 4)`; None means
    all. `fired` counts, so that a test can tell that the fault was met.
    """

    path: str
    action: Action
    hits: Container[int] | None = None
    fired: int = field(default=0, init=False)

    def applies_to(self, path: str, hit: int) -> bool:
        """Whether the `hit`-th request of the raw `path` is one of this rule's."""
        return (self.hits is None or hit in self.hits) and re.fullmatch(self.path, path) is not None


class Faults:
    """The faults of one sandbox: the first rule that applies, else one drawn at `rate` from the seed.

    A draw depends on seed, path and hit number alone, so the same requests fail however they interleave.
    Health, login and logout fail by rules only. `drawn` counts what failed by rate.
    """

    def __init__(self, rate: float = 0.0, seed: int = 1, rules: Sequence[Rule] = ()) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a fault rate lies between 0 and 1, not at {rate}")
        self.rate = rate
        self.seed = seed
        self.rules = tuple(rules)
        self.drawn = 0

    def action_for(self, path: str, hit: int) -> Action | None:
        """What befalls the `hit`-th request of the raw `path`, if anything; counts it."""
        for rule in self.rules:
            if rule.applies_to(path, hit):
                rule.fired += 1
                return rule.action
        return self._draw(path, hit)

    def _draw(self, path: str, hit: int) -> Action | None:
        if not self.rate or path.rstrip("/") in NEVER_BY_RATE:
            return None
        digest = blake2b(f"{self.seed}/{path}/{hit}".encode(), digest_size=8).digest()
        if int.from_bytes(digest[:4], "big") >= self.rate * 2**32:
            return None
        self.drawn += 1
        return BY_RATE[digest[4] % len(BY_RATE)]
