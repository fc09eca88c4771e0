"""What the simulated cluster holds. Everything is computed from the seed when asked for; nothing is kept."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from hashlib import blake2b
from statistics import NormalDist

from crdbexport.sandbox.details import (
    ROWID,
    draw_columns,
    draw_database_grants,
    draw_indexes,
    draw_storage,
    draw_table_grants,
)
from crdbexport.sandbox.layout import SYSTEM, Layout, Placement
from crdbexport.sandbox.objects import Column, Database, Grant, Index, ListedTable, TableDetails

__all__ = ["SYSTEM", "World"]

STORES = range(1, 10)
REPLICAS = 3
RANGE_BYTES = 512 * 2**20

EMPTY_TABLES_SHARE = 0.06
LARGEST_TABLE_BYTES = 4 * 2**40
TABLE_SIZES = NormalDist(mu=math.log(8 * 2**20), sigma=3.0)
"""The logarithm of a table's size: a median of 8 MiB, and one table in a thousand above 80 GiB."""
LEAST_LIVE_SHARE = 0.3
LEAST_COMPRESSED_SHARE = 0.4


class World:
    """`databases` databases of `tables` tables each (`defaultdb` and `postgres`: of none), and `system`.

    Any size starts at once, and two worlds of the same arguments hold the same. `views` adds as many to each database
    that has tables. `hostile_names` adds databases whose names are hard to carry in a URL, two of which (`.` and `..`)
    no URL can carry at all, and `twins`, in which two schemas hold a table of the same name: asked for by name, the
    first listed answers. `native_names` adds what real servers treat in a way of its own: `names`, with tables that SQL
    must quote, folds to others or cannot reach, a temporary one, one without a primary key and views, and databases
    whose names real servers' routes refuse.
    """

    def __init__(
        self,
        databases: int = 4,
        tables: int = 12,
        seed: int = 1,
        hostile_names: bool = False,
        *,
        native_names: bool = False,
        views: int = 0,
    ) -> None:
        if min(databases, tables, views) < 0:
            raise ValueError("a world cannot hold a negative number of databases, tables or views")
        self._layout = Layout(databases, tables, views, hostile_names=hostile_names, native_names=native_names)
        self._seed = seed

    def database_names(self) -> list[str]:
        """All names, in the order of the listing."""
        return self._layout.database_names()

    def database_id(self, name: str) -> int | None:
        """The database's descriptor id, without the cost of its details."""
        return self._layout.database_id(name)

    def database_name(self, database_id: int) -> str | None:
        """The name of the database that has this descriptor id."""
        located = self._layout.located(database_id)
        return located[0] if located and located[1] < 0 else None

    def database(self, name: str) -> Database | None:
        """The database's details; its size is the sum of its tables' sizes."""
        database_id = self.database_id(name)
        if database_id is None:
            return None
        positions = range(self._layout.object_count(name))
        size = sum(self._size_bytes(name, position) for position in positions)
        count = sum(self._layout.kind(name, position) == "table" for position in positions)
        return Database(name, database_id, size, count, self._store_ids(name))

    def replicated_bytes(self, name: str) -> int:
        """What all copies of the database's tables take on disk."""
        return sum(self._replicated_bytes(name, position) for position in range(self._layout.object_count(name)))

    def database_grants(self, name: str) -> tuple[Grant, ...]:
        """The grants on the database; none where there is no such database."""
        if self.database_id(name) is None:
            return ()
        return draw_database_grants(system=name == SYSTEM, rng=self._random(f"{name}/grants"))

    def tables(self, name: str) -> Iterator[ListedTable]:
        """The database's tables and views, one by one; none where there is no such database."""
        for position in range(self._layout.object_count(name)):
            placed = self._layout.placement(name, position)
            size = self._size_bytes(name, position)
            yield ListedTable(placed.name, placed.schema, placed.table_id, size, placed.kind)

    def table(self, database_name: str, table_name: str) -> TableDetails | None:
        """The details of the first table of that name, whatever its schema."""
        placed = self._layout.find(database_name, table_name)
        return self._details(database_name, placed) if placed else None

    def table_in(self, database_name: str, schema_name: str, table_name: str) -> TableDetails | None:
        """The details of the table of that name in that schema."""
        placed = self._layout.find(database_name, table_name, schema_name)
        return self._details(database_name, placed) if placed else None

    def table_with_id(self, table_id: int) -> TableDetails | None:
        """The details of the table or view that has this descriptor id."""
        located = self._layout.located(table_id)
        return self._details(located[0], self._layout.placement(*located)) if located and located[1] >= 0 else None

    def _details(self, database_name: str, placed: Placement) -> TableDetails:
        rng = self._random(f"{database_name}/{placed.position}")
        columns, indexes = self._inside(database_name, placed, rng)
        size = self._size_bytes(database_name, placed.position)
        ranges = 0 if placed.kind == "view" else 1 + size // RANGE_BYTES
        return TableDetails(
            table_name=placed.name,
            table_id=placed.table_id,
            database_name=database_name,
            schema_name=placed.schema,
            columns=columns,
            indexes=indexes,
            grants=draw_table_grants(system=database_name == SYSTEM, rng=rng),
            range_count=ranges,
            size_bytes=size,
            kind=placed.kind,
            live_bytes=int(size * self._share(LEAST_LIVE_SHARE, f"{database_name}/{placed.position}/live")),
            replicated_bytes=self._replicated_bytes(database_name, placed.position),
            replica_count=REPLICAS * ranges,
            store_ids=self._store_ids(database_name) if ranges else (),
        )

    def _inside(
        self, database_name: str, placed: Placement, rng: random.Random
    ) -> tuple[tuple[Column, ...], tuple[Index, ...]]:
        template = placed.template
        columns = draw_columns(template, repeated=placed.name != template.name, rng=rng)
        if placed.kind == "view":
            return columns, ()
        if placed.keyless:
            indexes = draw_indexes(placed.name, (ROWID, *columns), 1, rng)
            columns = (*columns, ROWID)
        else:
            indexes = draw_indexes(placed.name, columns, template.key_length, rng)
        storage = self._random(f"{database_name}/{placed.position}/storage")
        return columns, draw_storage(indexes, columns, storage)

    def _size_bytes(self, database_name: str, position: int) -> int:
        """The size of one table. Skewed as real ones are: some are empty, a few are huge."""
        if self._layout.kind(database_name, position) == "view":
            return 0
        share = self._fraction(f"{database_name}/{position}")
        if share < EMPTY_TABLES_SHARE:
            return 0
        filled = (share - EMPTY_TABLES_SHARE) / (1 - EMPTY_TABLES_SHARE)
        return min(int(math.exp(TABLE_SIZES.inv_cdf(filled))), LARGEST_TABLE_BYTES)

    def _replicated_bytes(self, database_name: str, position: int) -> int:
        one_copy = self._size_bytes(database_name, position)
        return int(one_copy * REPLICAS * self._share(LEAST_COMPRESSED_SHARE, f"{database_name}/{position}/disk"))

    def _store_ids(self, database_name: str) -> tuple[int, ...]:
        return tuple(sorted(self._random(database_name).sample(STORES, k=REPLICAS)))

    def _share(self, least: float, key: str) -> float:
        return least + (1 - least) * self._fraction(key)

    def _fraction(self, key: str) -> float:
        """A number between 0 and 1, never either."""
        # A hash, not a generator: a listing of ten thousand tables asks this ten thousand times.
        bits = int.from_bytes(blake2b(f"{self._seed}/{key}".encode(), digest_size=8).digest(), "big") >> 12
        return (bits + 0.5) / 2**52

    def _random(self, key: str) -> random.Random:
        return random.Random(f"{self._seed}/{key}")
