"""The addresses of one cluster: requests are spread over them, and one that fails is left out for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

FIRST_BREAK_SECONDS = 5.0
LONGEST_BREAK_SECONDS = 60.0


@dataclass
class Node:
    """One address, how many requests are under way to it, and how many failed in a row."""

    base_url: str
    under_way: int = 0
    taken: int = 0
    failures: int = 0
    out_until: float = 0.0


class Nodes:
    """Gives each request the address that has the least to do among those that are well.

    An address that failed gets nothing for a break, which doubles from failure to failure; then a single request tries
    it. Where all have failed, the one whose break ends first is asked at once.
    """

    def __init__(self, base_urls: Sequence[str], clock: Callable[[], float]) -> None:
        self._nodes = [Node(each) for each in base_urls]
        self._clock = clock

    @property
    def first(self) -> Node:
        """The address that would be asked now."""
        now = self._clock()
        well = [each for each in self._nodes if not each.failures or (each.out_until <= now and not each.under_way)]
        if well:
            return min(well, key=lambda each: (each.under_way, each.taken))
        return min(self._nodes, key=lambda each: each.out_until)

    @contextmanager
    def one(self) -> Iterator[Node]:
        """An address for one request."""
        node = self._nodes[0] if len(self._nodes) == 1 else self.first
        node.taken += 1
        node.under_way += 1
        try:
            yield node
        finally:
            node.under_way -= 1

    def failed(self, node: Node) -> None:
        """The address let nobody in, or hung up. Requests that fail side by side are one failure."""
        now = self._clock()
        if node.out_until > now:
            return
        node.failures += 1
        node.out_until = now + min(LONGEST_BREAK_SECONDS, FIRST_BREAK_SECONDS * 2 ** (node.failures - 1))

    def answered(self, node: Node) -> None:
        node.failures, node.out_until = 0, 0.0
