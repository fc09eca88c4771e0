"""Which table of a database told which descriptor id: two names that tell of one table cannot both be right."""

from __future__ import annotations

from crdbexport.cluster.model import Table, TableDetails
from crdbexport.cluster.reads import Read
from crdbexport.errors import UnreadableError, shown


class Identities:
    """Checks details in the order in which they are told. Ids are kept for the present database, and where asked to."""

    def __init__(self) -> None:
        self._first: dict[str, dict[int, Table]] = {}
        self._kept: set[str] = set()

    def enter(self, database: str) -> None:
        """The tables of this database come next."""
        self._first = {name: ids for name, ids in self._first.items() if name in self._kept}
        self._first.setdefault(database, {})

    def keep(self, database: str) -> None:
        """Remember this database's ids to the end: some of its tables come later."""
        self._kept.add(database)

    def checked(self, table: Table, read: Read[TableDetails]) -> Read[TableDetails]:
        """What was read, unless another name has told of the same id before."""
        if not isinstance(read, TableDetails) or read.table_id is None:
            return read
        first = self._first.setdefault(table.database, {}).setdefault(read.table_id, table)
        if (first.schema, first.name) == (table.schema, table.name):
            return read
        return UnreadableError(
            f"{shown(table.name)} was answered with id {read.table_id}, which is that of {shown(first.name)}",
            reason="ambiguous",
        )
