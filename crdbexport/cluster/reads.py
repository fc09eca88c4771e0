"""What came of asking for the parts of databases and tables."""

from __future__ import annotations

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
    """The part, or why it cannot be read."""
    try:
        return await reading
    except UnreadableError as error:
        return error


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
