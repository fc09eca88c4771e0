"""Remembers what a cluster answered, so that a run which was cut short asks for nothing twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from crdbexport.cluster.dialects import Dialect
from crdbexport.cluster.model import EVERYTHING, Database, DatabaseDetails, Grant, Parts, Table, TableDetails
from crdbexport.cluster.session import Session
from crdbexport.errors import LookAgainError, PartlyReadError, UnreadableError

T = TypeVar("T")

# These come of a server in trouble, and may have passed when the next attempt asks.
PASSING = frozenset({"server_error", "timeout", "bad_body"})


class Memory(Protocol):
    """Where answers outlive the process; questions are short texts."""

    def recall(self, question: str) -> bytes | None: ...

    def keep(self, question: str, answer: bytes) -> None: ...

    def forget(self) -> None: ...


class Nothing:
    """A memory that keeps nothing."""

    def recall(self, question: str) -> bytes | None:
        return None

    def keep(self, question: str, answer: bytes) -> None:
        pass

    def forget(self) -> None:
        pass


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one question; `value`, in MessagePack, is there unless it could not be read at all."""

    kind: Literal["read", "partly", "unreadable", "look_again"]
    value: bytes = b""
    message: str = ""
    reason: str = ""
    http_status: int | None = None


class RememberingDialect:
    """The given dialect, asked only for what an earlier attempt has not been told."""

    def __init__(self, dialect: Dialect, memory: Memory) -> None:
        self._dialect, self._memory = dialect, memory
        self._unsettled: set[tuple[str, str, str]] = set()
        self.name = dialect.name
        self.privileges = dialect.privileges
        self.details_at_once = dialect.details_at_once
        self.parts = dialect.parts
        self.requests = dialect.requests

    async def databases(self, session: Session) -> list[Database]:
        return await self._asked(("databases",), list[Database], lambda: self._dialect.databases(session))

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails:
        return await self._asked(
            ("database_details", database.name),
            DatabaseDetails,
            lambda: self._dialect.database_details(session, database),
        )

    async def database_grants(self, session: Session, database: Database) -> list[Grant]:
        return await self._asked(
            ("database_grants", database.name),
            list[Grant],
            lambda: self._dialect.database_grants(session, database),
        )

    async def tables(self, session: Session, database: Database) -> list[Table]:
        return await self._asked(
            ("tables", database.name), list[Table], lambda: self._dialect.tables(session, database)
        )

    async def table_details(self, session: Session, table: Table, parts: Parts = EVERYTHING) -> TableDetails:
        name = (table.database, table.schema, table.name)
        first_look = name not in self._unsettled
        try:
            return await remembered(
                self._memory,
                ("table_details" if first_look else "second_look", *name),
                TableDetails,
                lambda: self._dialect.table_details(session, table, parts),
                first_look=first_look,
            )
        except LookAgainError:
            self._unsettled.add(name)
            raise

    async def _asked(self, question: tuple[str, ...], shape: Any, ask: Callable[[], Awaitable[T]]) -> T:
        return await remembered(self._memory, question, shape, ask)


async def remembered(
    memory: Memory,
    question: tuple[str, ...],
    shape: Any,
    ask: Callable[[], Awaitable[T]],
    *,
    first_look: bool = False,
) -> T:
    """What the memory holds for the question, of type `shape`, else what `ask` answers, which is kept.

    `UnreadableError` is an answer as well, unless it comes of a server in trouble. That a first look is to be followed
    by another is kept whatever the cause, for it decides the order of the records.
    """
    key = msgspec.json.encode(question).decode()
    known = memory.recall(key)
    if known is not None:
        value: T = _recalled(msgspec.msgpack.decode(known, type=Answer), shape)
        return value
    try:
        value = await ask()
    except UnreadableError as error:
        if error.reason not in PASSING or (first_look and isinstance(error, LookAgainError)):
            memory.keep(key, msgspec.msgpack.encode(_answer_of(error)))
        raise
    memory.keep(key, msgspec.msgpack.encode(Answer("read", msgspec.msgpack.encode(value))))
    return value


def _answer_of(error: UnreadableError) -> Answer:
    told = (str(error), error.reason, error.http_status)
    if isinstance(error, PartlyReadError):
        return Answer("partly", msgspec.msgpack.encode(error.value), *told)
    return Answer("look_again" if isinstance(error, LookAgainError) else "unreadable", b"", *told)


def _recalled(answer: Answer, shape: Any) -> Any:
    if answer.kind == "read":
        return msgspec.msgpack.decode(answer.value, type=shape)
    kind = LookAgainError if answer.kind == "look_again" else UnreadableError
    if answer.kind == "partly":
        value = msgspec.msgpack.decode(answer.value, type=shape)
        raise PartlyReadError(answer.message, value, reason=answer.reason, http_status=answer.http_status)
    raise kind(answer.message, reason=answer.reason, http_status=answer.http_status)
