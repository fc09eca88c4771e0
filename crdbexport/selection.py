"""Which databases a run reads, and what it can therefore say about records that it did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from crdbexport.records import Gap

SYSTEM_DATABASE = "system"


@dataclass(frozen=True)
class Selection:
    """The databases of a run: those that match an include pattern (all, if there is none) and no exclude pattern.

    Patterns are shell globs, case-sensitive. The database `system` is left out unless a pattern is its very name.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def selects(self, database: str) -> bool:
        if any(matches(database, pattern) for pattern in self.exclude):
            return False
        if database == SYSTEM_DATABASE:
            return SYSTEM_DATABASE in self.include
        return not self.include or any(matches(database, pattern) for pattern in self.include)

    def unmatched(self, databases: Iterable[str]) -> list[str]:
        """The include patterns that match none of `databases`."""
        names = list(databases)
        return [pattern for pattern in self.include if not any(matches(name, pattern) for name in names)]


def matches(name: str, pattern: str) -> bool:
    """Whether the shell glob matches; a name that holds brackets or stars may also be given literally."""
    return name == pattern or fnmatchcase(name, pattern)


@dataclass(frozen=True)
class Coverage:
    """Where a run read one stream in full, by the names as published.

    A sink that keeps state asks it before it deletes a record that the run did not bring: "not seen" means "gone" only
    where the run looked.
    """

    selection: Selection
    unread: frozenset[tuple[str, ...]] = frozenset()
    """Objects not read: (database,) or (database, schema, table)."""
    known: bool = True
    """False when names were changed on the way, so that nothing can be said of a part of the cluster, or rows may be
    hidden from the account."""

    def covers(self, database: str, schema: str | None = None, table: str | None = None) -> bool:
        """Whether records of this database, or of this table, would have been seen if there were any."""
        if not self.known:
            return False
        if not self.selection.selects(database) or (database,) in self.unread:
            return False
        return schema is None or table is None or (database, schema, table) not in self.unread


TABLE_LEVEL = frozenset({"columns", "indexes", "table_grants"})


def coverage_of(
    stream: str,
    selection: Selection,
    gaps: Iterable[Gap],
    rename: Callable[[str, str], str] | None = None,
) -> Coverage:
    """The coverage of one stream after a run with these gaps.

    `rename` tells what a transform made of a name; the gaps carry such names already. Patterns do not match them, so
    that after a run over a part of the cluster nothing is known.
    """
    unread = {each for gap in gaps if (each := _blocks(stream, gap))}
    if rename is None:
        return Coverage(selection, frozenset(unread))
    unread.add((rename("database_name", SYSTEM_DATABASE),))
    return Coverage(Selection(), frozenset(unread), known=not (selection.include or selection.exclude))


def _blocks(stream: str, gap: Gap) -> tuple[str, ...] | None:
    """The object whose records of `stream` the gap hides, if it hides any."""
    if gap.reason == "not_found" and gap.table is not None:
        # Dropped meanwhile: its records are gone for good reason. Of a whole database the next list will tell.
        return None
    if stream == "database_grants":
        return (gap.database,) if gap.part == "grants" and gap.table is None else None
    if stream == "tables":
        return (gap.database,) if gap.part == "tables" else None
    if stream in TABLE_LEVEL:
        if gap.part == "tables":
            return (gap.database,)
        if gap.table is not None and gap.schema is not None:
            return (gap.database, gap.schema, gap.table)
    return None
