"""What came of asking for the parts of databases and tables."""

from __future__ import annotations

import traceback
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from crdbexport.cluster.model import Database, DatabaseDetails, Grant, Table, TableDetails
from crdbexport.errors import LookAgainError, PartlyReadError, UnreadableError
from crdbexport.records import FETCHED, NOT_REQUESTED

T = TypeVar("T")
# What came of one part: its value, why there is none, or None where it was not asked for.
Read: TypeAlias = T | UnreadableError | None


@dataclass(frozen=True)
class DatabaseRead:
    database: Database
    details: Read[DatabaseDetails]
    grants: Read[list[Grant]]
    tables: Read[list[Table]]


@dataclass(frozen=True)
class TableRead:
    table: Table
    details: Read[TableDetails]


async def outcome_of(reading: Coroutine[Any, Any, T]) -> T | UnreadableError:
    """The part, or why it cannot be read; as a value, the error holds no frame that it came through."""
    try:
        return await reading
    except UnreadableError as error:
        _let_go(error)
        return error


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error and of those before it: they hold whole answers, and refer to each other."""
    seen: set[BaseException] = set()
    waiting = [error]
    while waiting:
        if (each := waiting.pop()) is not None and each not in seen:
            seen.add(each)
            traceback.clear_frames(each.__traceback__)
            each.__traceback__ = None
            waiting += (each.__cause__, each.__context__)


def value_of(read: Read[T]) -> T | None:
    """What there is of a part, be it the whole or not."""
    if isinstance(read, UnreadableError):
        value: T | None = read.value if isinstance(read, PartlyReadError) else None
        return value
    return read


def status_of(read: Read[Any]) -> str:
    """What a record says of the part in its field `details`."""
    if read is None:
        return NOT_REQUESTED
    return read.reason if isinstance(read, UnreadableError) else FETCHED


def unsettled(read: TableRead) -> bool:
    """Whether the table deserves a second look."""
    return isinstance(read.details, LookAgainError)


def in_name_order(tables: Iterable[Table]) -> list[Table]:
    """Each table once, in order of schema and name."""
    distinct = {(each.schema, each.name): each for each in reversed(list(tables))}
    return [distinct[key] for key in sorted(distinct)]
