"""Which dialect a server speaks: told from what it answers, once a run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from crdbexport.cluster.dialects import Dialect, OtherFormError
from crdbexport.cluster.dialects.documented import LIST, NO_LIST, DocumentedDialect, databases_of
from crdbexport.cluster.dialects.native import NativeDialect, listed_databases
from crdbexport.cluster.dialects.native_by_id import NativeByIdDialect
from crdbexport.cluster.dialects.native_metadata import database_metadata
from crdbexport.cluster.dialects.wire_native import DatabaseMetadata
from crdbexport.cluster.model import Database
from crdbexport.cluster.remembering import Memory, Nothing, remembered
from crdbexport.cluster.replies import fatal
from crdbexport.cluster.session import Session
from crdbexport.config import DialectName
from crdbexport.errors import UnreadableError

# Older than a day, and a nightly run has seen the same before.
STALE_AFTER = timedelta(days=1)
REFRESH = "have them measured with --refresh-stats, or in its DB Console; stats_as_of says when each was"

log = logging.getLogger(__name__)


class Detected(msgspec.Struct, frozen=True):
    """What a server was found to speak, and the lists that were read on the way."""

    documented: list[Database] | None = None
    names: list[str] | None = None
    metadata: dict[str, DatabaseMetadata] | None = None

    def dialect(self) -> Dialect:
        if self.names is None:
            return DocumentedDialect(self.documented)
        return NativeDialect(self.names) if self.metadata is None else NativeByIdDialect(self.names, self.metadata)


async def detected(
    session: Session,
    wanted: DialectName,
    refresh: Callable[[Session], Awaitable[None]] | None = None,
    memory: Memory | None = None,
) -> Dialect:
    """The dialect that is wanted, or with `auto` the server's own; the lists that were read are handed on to it.

    `refresh` is called once a native server is known as one, before its metadata are read; `memory` holds what an
    earlier attempt has found. Raises what ends the run where the server speaks neither.
    """
    if wanted == "documented":
        return DocumentedDialect()
    known = Nothing() if memory is None else memory
    found = await remembered(known, ("dialect",), Detected, lambda: _found(session, wanted, refresh))
    return found.dialect()


async def _found(
    session: Session, wanted: DialectName, refresh: Callable[[Session], Awaitable[None]] | None
) -> Detected:
    if wanted == "auto":
        listed = await _documented_list(session)
        if listed is not None:
            return Detected(documented=listed)
    names = await listed_databases(session)
    if refresh is not None:
        await refresh(session)
    return Detected(names=names, metadata=await _metadata(session))


async def _documented_list(session: Session) -> list[Database] | None:
    """The list of databases as the documented form asks for it, None where the answer may be the native form's."""
    try:
        return await session.get(LIST, _documented)
    except UnreadableError as error:
        if error.reason == "unaddressable":
            return None  # Real servers have no route without a slash at its end.
        raise fatal(error, hint=NO_LIST) from error


async def _metadata(session: Session) -> dict[str, DatabaseMetadata] | None:
    """What the metadata endpoints tell of all databases, None where the server has no such endpoints."""
    try:
        rows = await database_metadata(session)
    except UnreadableError as error:
        if error.reason != "unaddressable":
            log.warning(
                "%s; sizes and counts are read table by table, which takes many more requests",
                error,
                extra={"event": "metadata_unreadable"},
            )
        return None
    _warn_of_age([row.last_updated for row in rows.values()], datetime.now(UTC))
    return rows


def _warn_of_age(measured_at: Iterable[datetime | None], now: datetime) -> None:
    """Real servers measure only when somebody asks them to: `native_refresh`, or the DB Console."""
    rows = list(measured_at)
    times = [each for each in rows if each is not None]
    if not rows:
        return  # The account sees no database, which says nothing of the cache.
    if not times:
        log.warning("the cluster has never measured its tables: %s", REFRESH, extra={"event": "stats_never_taken"})
    elif now - min(times) > STALE_AFTER:
        days = (now - min(times)).days
        log.warning("sizes and counts are up to %d days old: %s", days, REFRESH, extra={"event": "stats_stale"})


def _documented(body: bytes) -> list[Database] | None:
    try:
        return databases_of(body)
    except OtherFormError:
        return None
    except msgspec.ValidationError:
        if body.strip() == b"{}":
            return None
        raise
