"""The seam between server forms: the extractor walks a cluster, a dialect knows what to ask and how to read it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from crdbexport.cluster.model import Database, DatabaseDetails, Grant, Parts, Table, TableDetails
from crdbexport.cluster.session import Session


class Dialect(Protocol):
    """How one form of server is asked and read.

    Each method may send any number of requests. It raises `UnreadableError` where its answer cannot be had, which the
    extractor turns into a gap; `databases` raises only errors that end the run.
    """

    name: str

    def parts(self, streams: Collection[str]) -> Parts:
        """What has to be asked for these streams in this form."""

    async def databases(self, session: Session) -> list[Database]:
        """All databases that the account sees, in the server's order."""

    async def database_details(self, session: Session, database: Database) -> DatabaseDetails: ...

    async def database_grants(self, session: Session, database: Database) -> list[Grant]: ...

    async def tables(self, session: Session, database: Database) -> list[Table]:
        """All tables of the database that the account sees, in the server's order."""

    async def table_details(self, session: Session, table: Table) -> TableDetails: ...
