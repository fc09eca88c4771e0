"""Both kinds of pages: `limit`, `offset` and `next`, and `pageNum` and `pageSize`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from crdbexport.sandbox.native.quirks import NextOffset
from crdbexport.sandbox.native.replies import RefusedError

T = TypeVar("T")
Query = Mapping[str, str]

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
SORT_ORDERS = frozenset({"", "asc", "desc"})


@dataclass(frozen=True)
class Window:
    """What a request asked for; without a limit, which nothing can make invalid, it is the whole list."""

    limit: int
    offset: int

    @classmethod
    def of(cls, query: Query) -> Window:
        """The window of a request."""
        limit = max(_integer(query.get("limit", "")) or 0, 0)
        return cls(limit, max(_integer(query.get("offset", "")) or 0, 0) if limit else 0)

    def of_items(self, items: Sequence[T]) -> Sequence[T]:
        """What of the list lies in the window."""
        return items[self.offset : self.offset + self.limit] if self.limit else items

    def exact_next(self, total: int, told: NextOffset) -> dict[str, int]:
        """`next` where the server counts: absent on the last page."""
        return self._next(self.offset + self.limit < total, total, told)

    def full_page_next(self, total: int, told: NextOffset) -> dict[str, int]:
        """`next` where the server does not count: set on every full page, even the last."""
        return self._next(self.offset + self.limit <= total, total, told)

    def _next(self, more: bool, total: int, told: NextOffset) -> dict[str, int]:
        if not self.limit:
            return {}
        following = self.offset + self.limit
        if told == "stuck":
            return {"next": self.offset or self.limit}
        if told == "cycling":
            return {"next": following if following < total else self.limit}
        return {"next": following} if more else {}


@dataclass(frozen=True)
class NumberedPage:
    """What a request asked for by number, from 1; of size 0 it is the whole list."""

    size: int
    number: int

    @classmethod
    def of(cls, query: Query, *, usual_size: int) -> NumberedPage:
        """The page of a request; raises RefusedError (400) where a number is none."""
        size, number = (max(number_in(query, name) or 0, 0) for name in ("pageSize", "pageNum"))
        size = size or usual_size
        return cls(size, number or (1 if size else 0))

    def of_items(self, items: Sequence[T]) -> Sequence[T]:
        """What of the list stands on the page."""
        first = (self.number - 1) * self.size
        return items[first : first + self.size] if self.size else items

    def info(self, rows: Sequence[Any], total: int) -> dict[str, int]:
        """`pagination_info`; the total is counted on the rows, so that a page past the end has none."""
        return {"total_results": total if rows else 0, "page_size": self.size, "page_num": self.number}


def number_in(query: Query, name: str) -> int | None:
    """The integer of that name, None where there is none; raises RefusedError (400) where it is not an integer."""
    text = query.get(name, "")
    if text and not INTEGER.fullmatch(text):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"invalid query param value for: {name}")
    return _integer(text)


def check_sort_order(query: Query, refusal: str) -> None:
    """Raises RefusedError (400) for an order that is none; rows keep their own order otherwise."""
    if query.get("sortOrder", "").lower() not in SORT_ORDERS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, refusal)


def _integer(text: str) -> int | None:
    return int(text) if INTEGER.fullmatch(text) else None
