"""The seam between server forms: the extractor walks a cluster, a dialect knows what to ask and how to read it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from crdbexport.cluster.model import EVERYTHING, Database, DatabaseDetails, Grant, Parts, Table, TableDetails
from crdbexport.cluster.privileges import Privileges
from crdbexport.cluster.session import Session
from crdbexport.errors import UnreadableError


class OtherFormError(UnreadableError):
    """The server lists its databases in the form of another dialect."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="bad_body", http_status=200)


class Dialect(Protocol):
    """How one form of server is asked and read.

    Each method may send any number of requests. It raises `UnreadableError` where its answer cannot be had, which the
    extractor turns into a gap; `databases` raises only errors that end the run. `details_at_once` is how many tables'
    details the server is asked for side by side, where that is a question of politeness. `privileges` is what such
    servers ask of an account.
    """

    name: str
    details_at_once: int | None
    privileges: Privileges

    def parts(self, streams: Collection[str], include: Collection[str] = ()) -> Parts:
        """What has to be asked in this form for these streams, with the fields of `include` as far as it tells them."""

    async def databases(self, session: Session) -> list[Database]:
        """All databases that the account sees, in the server's order."""

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails: ...

    async def database_grants(self, session: Session, database: Database) -> list[Grant]: ...

    async def tables(self, session: Session, database: Database) -> list[Table]:
        """All tables of the database that the account sees, in the server's order."""

    async def table_details(self, session: Session, table: Table, parts: Parts = EVERYTHING) -> TableDetails: ...

    def requests(self, parts: Parts, databases: int, tables: int) -> int:
        """About how many requests the walk of so many databases and tables takes."""
