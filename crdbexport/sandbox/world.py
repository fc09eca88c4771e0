"""What the simulated cluster holds. Everything is computed from the seed when asked for; nothing is kept."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist

from crdbexport.sandbox.details import draw_columns, draw_database_grants, draw_indexes, draw_table_grants
from crdbexport.sandbox.objects import Database, Grant, ListedTable, TableDetails
from crdbexport.sandbox.templates import (
    HARD_NAMES,
    KINDS,
    SCHEMAS,
    SYSTEM_TABLES,
    TWIN_TABLES,
    TWINS,
    TableTemplate,
)

SYSTEM = "system"
FIRST_NAMES = ("movr", "bank", "defaultdb", "postgres")
EMPTY_DATABASES = frozenset({"defaultdb", "postgres"})
KIND_ORDER = tuple(KINDS)

SYSTEM_DATABASE_ID = 1
FIRST_DATABASE_ID = 104  # Where a new cluster of a recent version begins with a user's own databases.
MOST_SPECIAL_TABLES = 8
STORES = range(1, 10)
RANGE_BYTES = 512 * 2**20

EMPTY_TABLES_SHARE = 0.06
LARGEST_TABLE_BYTES = 4 * 2**40
TABLE_SIZES = NormalDist(mu=math.log(8 * 2**20), sigma=3.0)
"""The logarithm of a table's size: a median of 8 MiB, and one table in a thousand above 80 GiB."""


@dataclass(frozen=True)
class _Placement:
    """Where a table stands: its position among the database's tables, its names, id and layout."""

    position: int
    schema: str
    name: str
    table_id: int
    template: TableTemplate


class World:
    """`databases` databases of `tables` tables each (`defaultdb` and `postgres`: of none), and `system`.

    Any size starts at once, and two worlds of the same arguments hold the same. `hostile_names` adds
    databases whose names are hard to carry in a URL, two of which (`.` and `..`) no URL can carry at all, and
    `twins`, in which two schemas hold a table of the same name: asked for by name, the first listed answers.
    """

    def __init__(
        self, databases: int = 4, tables: int = 12, seed: int = 1, hostile_names: bool = False
    ) -> None:
        if databases < 0 or tables < 0:
            raise ValueError("a world cannot hold a negative number of databases or tables")
        self._regular_databases = databases
        self._tables_each = tables
        self._seed = seed
        self._hostile = (*HARD_NAMES, TWINS) if hostile_names else ()
        self._ids_per_database = max(tables, MOST_SPECIAL_TABLES) + 1

    def database_names(self) -> list[str]:
        """All names, in the order of the listing."""
        return [*map(_database_name, range(self._regular_databases)), *self._hostile, SYSTEM]

    def database_id(self, name: str) -> int | None:
        """The database's descriptor id, without the cost of its details."""
        if name == SYSTEM:
            return SYSTEM_DATABASE_ID
        number = self._number(name)
        return None if number is None else FIRST_DATABASE_ID + number * self._ids_per_database

    def database(self, name: str) -> Database | None:
        """The database's details; its size is the sum of its tables' sizes."""
        database_id = self.database_id(name)
        if database_id is None:
            return None
        sizes = [self._size_bytes(name, position) for position in range(self._table_count(name))]
        stores = sorted(self._random(name).sample(STORES, k=3))
        return Database(name, database_id, sum(sizes), len(sizes), tuple(stores))

    def database_grants(self, name: str) -> tuple[Grant, ...]:
        """The grants on the database; none where there is no such database."""
        if self.database_id(name) is None:
            return ()
        return draw_database_grants(system=name == SYSTEM, rng=self._random(f"{name}/grants"))

    def tables(self, name: str) -> Iterator[ListedTable]:
        """The database's tables, one by one; none where there is no such database."""
        for position in range(self._table_count(name)):
            placed = self._placement(name, position)
            size = self._size_bytes(name, position)
            yield ListedTable(placed.name, placed.schema, placed.table_id, size)

    def table(self, database_name: str, table_name: str) -> TableDetails | None:
        """The details of the first table of that name, whatever its schema."""
        placed = self._find(database_name, table_name)
        if placed is None:
            return None
        rng = self._random(f"{database_name}/{placed.position}")
        size = self._size_bytes(database_name, placed.position)
        columns = draw_columns(placed.template, repeated=placed.name != placed.template.name, rng=rng)
        return TableDetails(
            table_name=placed.name,
            table_id=placed.table_id,
            database_name=database_name,
            schema_name=placed.schema,
            columns=columns,
            indexes=draw_indexes(placed.name, columns, placed.template.key_length, rng),
            grants=draw_table_grants(system=database_name == SYSTEM, rng=rng),
            range_count=1 + size // RANGE_BYTES,
            size_bytes=size,
        )

    def _number(self, name: str) -> int | None:
        """The database's place among all but `system`."""
        if name in self._hostile:
            return self._regular_databases + self._hostile.index(name)
        number = FIRST_NAMES.index(name) if name in FIRST_NAMES else _trailing_number(name)
        known = number < self._regular_databases and name == _database_name(number)
        return number if known else None

    def _table_count(self, name: str) -> int:
        if name == SYSTEM:
            return len(SYSTEM_TABLES)
        if name in self._hostile:
            return len(TWIN_TABLES)
        empty = name in EMPTY_DATABASES or self._number(name) is None
        return 0 if empty else self._tables_each

    def _placement(self, database_name: str, position: int) -> _Placement:
        if database_name == SYSTEM:
            table_id, template = list(SYSTEM_TABLES.items())[position]
            return _Placement(position, "public", template.name, table_id, template)
        templates = KINDS[_kind(database_name)]
        template = templates[position % len(templates)]
        if database_name in self._hostile:
            schema, name = _hostile_table(database_name, position)
        elif position < len(templates):
            schema, name = "public", template.name
        else:
            schema, name = SCHEMAS[position % len(SCHEMAS)], f"{template.name}_{position:04d}"
        table_id = (self.database_id(database_name) or 0) + 1 + position
        return _Placement(position, schema, name, table_id, template)

    def _find(self, database_name: str, table_name: str) -> _Placement | None:
        positions: Sequence[int] = range(self._table_count(database_name))
        if database_name != SYSTEM and database_name not in self._hostile:
            plain = [template.name for template in KINDS[_kind(database_name)]]
            guess = plain.index(table_name) if table_name in plain else _trailing_number(table_name)
            positions = positions[guess : guess + 1]
        placed = (self._placement(database_name, position) for position in positions)
        return next((each for each in placed if each.name == table_name), None)

    def _size_bytes(self, database_name: str, position: int) -> int:
        """The size of one table. Skewed as real ones are: some are empty, a few are huge."""
        key = f"{self._seed}/{database_name}/{position}".encode()
        # A hash, not a generator: a listing of ten thousand tables asks this ten thousand times.
        bits = int.from_bytes(blake2b(key, digest_size=8).digest(), "big") >> 12
        share = (bits + 0.5) / 2**52
        if share < EMPTY_TABLES_SHARE:
            return 0
        filled = (share - EMPTY_TABLES_SHARE) / (1 - EMPTY_TABLES_SHARE)
        return min(int(math.exp(TABLE_SIZES.inv_cdf(filled))), LARGEST_TABLE_BYTES)

    def _random(self, key: str) -> random.Random:
        return random.Random(f"{self._seed}/{key}")


def _database_name(number: int) -> str:
    if number < len(FIRST_NAMES):
        return FIRST_NAMES[number]
    return f"{KIND_ORDER[number % len(KIND_ORDER)]}_{number:02d}"


def _kind(database_name: str) -> str:
    prefix = database_name.partition("_")[0]
    return prefix if prefix in KINDS else "shop"


def _trailing_number(name: str) -> int:
    """The number that a generated name ends with; 0 when it has none, which is then nobody's name."""
    match = re.search(r"_([0-9]{2,9})\Z", name)
    return int(match[1]) if match else 0


def _hostile_table(database_name: str, position: int) -> tuple[str, str]:
    """Schema and name; the next hard name serves too, so that `.` is a table of an addressable database."""
    if database_name == TWINS:
        return TWIN_TABLES[position]
    following = HARD_NAMES[(HARD_NAMES.index(database_name) + 1) % len(HARD_NAMES)]
    return (("public", "plain"), ("public", database_name), ("audit", following))[position]
