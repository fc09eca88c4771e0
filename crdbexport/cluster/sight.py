"""What a look at a cluster showed the account, and where that seems to be less than there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from crdbexport.cluster.dialects.wire_native import DatabaseMetadata
from crdbexport.cluster.model import DatabaseDetails, Parts, TableDetails
from crdbexport.cluster.privileges import USUALLY_EMPTY, Privileges
from crdbexport.cluster.reads import DatabaseRead, Read, TableRead
from crdbexport.errors import UnreadableError
from crdbexport.records import Part

Metadata = dict[str, DatabaseMetadata] | UnreadableError | None


@dataclass
class Sight:
    """What was asked for and read, counted by part, and the databases in which something seems to lack, by name.

    Details are those of one table a database. `metadata` is what the metadata endpoints answered, None where no server
    of this form has any.
    """

    privileges: Privileges
    parts: Parts
    asked: Counter[Part] = field(default_factory=Counter)
    read: Counter[Part] = field(default_factory=Counter)
    databases: list[str] = field(default_factory=list)
    without_tables: list[str] = field(default_factory=list)
    without_grants: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    metadata: Metadata = None

    def note(self, read: DatabaseRead, table: TableRead | None) -> None:
        """Judge what came of one database and of one of its tables."""
        name, details = read.database.name, table.details if table else None
        self.databases.append(name)
        self._count("tables", read.tables)
        self._count("grants", read.grants)
        self._count("details", details)
        if read.tables == [] and _should_hold_tables(read):
            self.without_tables.append(name)
        if read.grants == []:
            # The roles root and admin hold privileges on every database.
            self.without_grants.append(name)
        if any(map(_forbidden, (read.tables, read.grants))) or self._refused(details):
            self.refused.append(name)

    @property
    def details_needed(self) -> bool:
        """Whether the run asks for what only a table's details by name tell."""
        return self.parts.table_details and (self.parts.table_columns or bool(self.parts.include))

    @property
    def without_metadata(self) -> list[str]:
        """The databases that the metadata leave out."""
        if self.metadata is None or isinstance(self.metadata, UnreadableError):
            return []
        return [name for name in self.databases if name not in self.metadata]

    @property
    def lacking(self) -> list[str]:
        """The databases in which the account seems to lack a privilege."""
        found = {*self.without_tables, *self.without_grants, *self.refused, *self.without_metadata}
        return [name for name in self.databases if name in found]

    def _count(self, part: Part, outcome: Read[object]) -> None:
        self.asked[part] += outcome is not None
        self.read[part] += not (outcome is None or isinstance(outcome, UnreadableError))

    def _refused(self, details: Read[TableDetails]) -> bool:
        """Whether privileges lack for details that the run needs; what opens all rows is not asked for otherwise."""
        if not self.details_needed or not isinstance(details, UnreadableError):
            return False
        return details.reason in self.privileges.refused_as


def _should_hold_tables(read: DatabaseRead) -> bool:
    """Whether an empty list of tables is suspicious: the server counts some, or nobody knows."""
    counted = read.details.table_count if isinstance(read.details, DatabaseDetails) else None
    return read.database.name not in USUALLY_EMPTY if counted is None else counted > 0


def _forbidden(outcome: Read[object]) -> bool:
    return isinstance(outcome, UnreadableError) and outcome.reason == "forbidden"
