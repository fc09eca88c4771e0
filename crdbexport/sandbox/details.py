"""What one simulated object is like inside, drawn from a generator that its caller has seeded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from crdbexport.sandbox.objects import Column, Grant, Index
from crdbexport.sandbox.templates import (
    DATABASE_ROLES,
    OPTIONAL_COLUMNS,
    TABLE_ROLES,
    UNINDEXED_TYPES,
    TableTemplate,
)

MOST_COLUMNS = 25
MOST_SECONDARY_INDEXES = 3
TWO_COLUMN_SHARE = 0.4
UNIQUE_SHARE = 0.25
ROLE_SHARE = 0.35
DESCENDING_SHARE = 0.2
STORING_SHARE = 0.35
MOST_STORED_COLUMNS = 2

ROWID = Column("rowid", "INT8", nullable=False, hidden=True)
"""The key that the cluster gives a table which was made without one."""

ADMIN = Grant("admin", ("ALL",))
ROOT = Grant("root", ("ALL",))
USUAL_ON_DATABASES = (Grant("app_user", ("CONNECT", "CREATE")), Grant("readonly", ("CONNECT",)))
USUAL_ON_TABLES = (
    Grant("app_user", ("DELETE", "INSERT", "SELECT", "UPDATE")),
    Grant("readonly", ("SELECT",)),
)


def draw_columns(template: TableTemplate, *, repeated: bool, rng: random.Random) -> tuple[Column, ...]:
    """The template's columns; a table that repeats a template has some more of its own."""
    columns = template.columns
    if not repeated:
        return columns
    taken = {column.name for column in columns}
    free = [column for column in OPTIONAL_COLUMNS if column.name not in taken]
    wanted = rng.randint(0, min(len(free), MOST_COLUMNS - len(columns)))
    return columns + tuple(rng.sample(free, k=wanted))


def draw_indexes(table_name: str, columns: Sequence[Column], key_length: int, rng: random.Random) -> tuple[Index, ...]:
    """The primary index over the first `key_length` columns, and up to three others."""
    key = tuple(column.name for column in columns[:key_length])
    indexable = [c.name for c in columns[key_length:] if not c.type.startswith(UNINDEXED_TYPES)]
    chosen = rng.sample(indexable, k=min(len(indexable), rng.randint(0, MOST_SECONDARY_INDEXES)))
    secondary = [_secondary_index(table_name, first, indexable, rng) for first in chosen]
    return (Index(f"{table_name}_pkey", key, unique=True), *secondary)


def _secondary_index(table_name: str, first: str, indexable: list[str], rng: random.Random) -> Index:
    columns = [first]
    if rng.random() < TWO_COLUMN_SHARE:
        columns += [name for name in rng.sample(indexable, k=1) if name != first]
    unique = rng.random() < UNIQUE_SHARE
    suffix = "key" if unique else "idx"
    return Index(f"{table_name}_{'_'.join(columns)}_{suffix}", tuple(columns), unique)


def draw_storage(indexes: Sequence[Index], columns: Sequence[Column], rng: random.Random) -> tuple[Index, ...]:
    """The same indexes with the directions of their columns, the secondary ones with columns that they store."""
    if not indexes:
        return ()
    primary, *secondary = indexes
    rest = [column.name for column in columns if column.name not in primary.columns]
    primary = replace(primary, directions=("ASC",) * len(primary.columns))
    return (primary, *[_with_storage(index, rest, rng) for index in secondary])


def _with_storage(index: Index, rest: Sequence[str], rng: random.Random) -> Index:
    directions = tuple("DESC" if rng.random() < DESCENDING_SHARE else "ASC" for _ in index.columns)
    free = [name for name in rest if name not in index.columns]
    most = min(len(free), MOST_STORED_COLUMNS)
    stored = rng.sample(free, k=rng.randint(1, most)) if most and rng.random() < STORING_SHARE else []
    return replace(index, directions=directions, stored=tuple(stored))


def draw_database_grants(*, system: bool, rng: random.Random) -> tuple[Grant, ...]:
    """The grants on a database, by user."""
    always = (ADMIN, Grant("public", ("CONNECT",)), ROOT)
    return always if system else _by_user((*always, *USUAL_ON_DATABASES, *_some(DATABASE_ROLES, rng)))


def draw_table_grants(*, system: bool, rng: random.Random) -> tuple[Grant, ...]:
    """The grants on a table, by user."""
    always = (ADMIN, ROOT)
    return always if system else _by_user((*always, *USUAL_ON_TABLES, *_some(TABLE_ROLES, rng)))


def _some(roles: Sequence[Grant], rng: random.Random) -> list[Grant]:
    return [grant for grant in roles if rng.random() < ROLE_SHARE]


def _by_user(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    return tuple(sorted(grants, key=lambda grant: grant.user))
