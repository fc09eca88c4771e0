"""The addresses of one cluster: requests are spread over them, and one that fails is left out for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

FIRST_BREAK_SECONDS = 5.0
LONGEST_BREAK_SECONDS = 60.0
DOUBTS = 3
"""So many answers in a row that are of no use count as one failure: one may be the object's fault."""


@dataclass
class Node:
    """One address; `known` once it has answered like a node of CockroachDB."""

    base_url: str
    known: bool = False
    under_way: int = 0
    asked: int = 0
    doubts: int = 0
    failures: int = 0
    out_until: float = 0.0


class Nodes:
    """Gives each request the address that has the least to do among those that are well.

    An address that failed gets nothing for a break, which doubles from failure to failure; then a single request tries
    it, as one does that is not known yet. Where none is well, all are asked in turn.
    """

    def __init__(self, base_urls: Sequence[str], clock: Callable[[], float]) -> None:
        self._nodes = [Node(each) for each in base_urls]
        self._clock = clock
        self._turns = count(1)

    @contextmanager
    def one(self, avoid: Node | None = None) -> Iterator[Node]:
        """An address for one request, not `avoid` if another is well."""
        node = self._nodes[0] if len(self._nodes) == 1 else self._chosen(avoid)
        node.asked = next(self._turns)
        node.under_way += 1
        try:
            yield node
        finally:
            node.under_way -= 1

    def answered(self, node: Node) -> None:
        """The address is well."""
        node.doubts, node.failures, node.out_until = 0, 0, 0.0

    def doubted(self, node: Node) -> None:
        """The address gave an answer of no use."""
        node.doubts += 1
        if node.doubts >= DOUBTS:
            self.failed(node)

    def failed(self, node: Node) -> None:
        """The address let nobody in, hung up or was silent. What fails side by side is one failure."""
        now = self._clock()
        if node.out_until > now:
            return
        node.doubts = 0
        node.failures += 1
        node.out_until = now + min(LONGEST_BREAK_SECONDS, FIRST_BREAK_SECONDS * 2 ** (node.failures - 1))

    def _chosen(self, avoid: Node | None) -> Node:
        others = [each for each in self._nodes if each is not avoid]
        now = self._clock()
        well = [each for each in others if self._may_be_asked(each, now)]
        return min(well or others, key=lambda each: (bool(well) and each.under_way, each.asked))

    def _may_be_asked(self, node: Node, now: float) -> bool:
        proven = node.known and not node.failures
        return proven or (node.out_until <= now and not node.under_way)
