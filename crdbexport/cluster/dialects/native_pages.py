"""Lists that may come in pages: `limit`, `offset` and `next`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.session import Session
from crdbexport.errors import PartlyReadError

T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """One answer to a list; `next` is the offset of the following one, and says nothing where it is None or 0."""

    items: Sequence[T]
    next: int | None


async def whole_list(session: Session, segments: tuple[str, ...], page_of: Callable[[bytes], Page[T]]) -> list[T]:
    """The list at an endpoint, each item once, in the server's order.

    No limit is sent: that gives the whole list out of one statement. Pages that come all the same are followed. Raises
    `PartlyReadError` (`pagination_loop`) with what there is where they lead nowhere.
    """
    items: dict[T, None] = {}
    offset = 0
    query: tuple[tuple[str, int], ...] = ()
    while True:
        endpoint = Endpoint("GET", segments, trailing_slash=True, query=query)
        page = await session.get(endpoint, page_of)
        known = len(items)
        items.update(dict.fromkeys(page.items))
        # The server sets next on every full page, even the last.
        if not page.items or not page.next:
            return list(items)
        if page.next <= offset or len(items) == known:
            raise PartlyReadError(
                f"{endpoint} is a list without an end: the page at {offset} names {page.next} as the next",
                list(items),
                reason="pagination_loop",
            )
        # Without a limit the server takes no notice of the offset.
        offset, query = page.next, (("limit", page.next - offset), ("offset", page.next))
