"""Which databases, tables and views the simulated cluster holds: names and descriptor ids, computed when asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crdbexport.sandbox.hard_names import NamedObject, hostile_databases, native_databases
from crdbexport.sandbox.objects import Kind
from crdbexport.sandbox.templates import KINDS, SCHEMAS, SYSTEM_TABLES, TableTemplate

SYSTEM = "system"
FIRST_NAMES = ("movr", "bank", "defaultdb", "postgres")
EMPTY_DATABASES = frozenset({"defaultdb", "postgres"})
KIND_ORDER = tuple(KINDS)

SYSTEM_DATABASE_ID = 1
SYSTEM_IDS = tuple(SYSTEM_TABLES)
FIRST_DATABASE_ID = 104  # Where a new cluster of a recent version begins with a user's own databases.
FEWEST_TABLE_IDS = 8


@dataclass(frozen=True)
class Placement:
    """Where a table stands: its position among the database's tables, its names, id and template."""

    position: int
    schema: str
    name: str
    table_id: int
    template: TableTemplate
    kind: Kind = "table"
    keyless: bool = False


class Layout:
    """The names and ids of a world, without anything that is drawn from its seed."""

    def __init__(self, databases: int, tables: int, views: int, *, hostile_names: bool, native_names: bool) -> None:
        self._regular_databases = databases
        self._tables_each = tables
        self._views_each = views
        self._named: dict[str, tuple[NamedObject, ...]] = {}
        if hostile_names:
            self._named |= hostile_databases()
        if native_names:
            self._named |= native_databases()
        most_named = max(map(len, self._named.values()), default=0)
        self._ids_per_database = max(tables + views, FEWEST_TABLE_IDS, most_named) + 1
        self._named_order = tuple(self._named)

    def database_names(self) -> list[str]:
        """All names, in the order of the listing."""
        return [*map(_database_name, range(self._regular_databases)), *self._named_order, SYSTEM]

    def database_id(self, name: str) -> int | None:
        """The database's descriptor id."""
        if name == SYSTEM:
            return SYSTEM_DATABASE_ID
        number = self._number(name)
        return None if number is None else FIRST_DATABASE_ID + number * self._ids_per_database

    def located(self, descriptor_id: int) -> tuple[str, int] | None:
        """The database and the position in it that an id stands for; position -1 is the database itself."""
        if descriptor_id == SYSTEM_DATABASE_ID:
            return SYSTEM, -1
        if descriptor_id in SYSTEM_TABLES:
            return SYSTEM, SYSTEM_IDS.index(descriptor_id)
        number, place = divmod(descriptor_id - FIRST_DATABASE_ID, self._ids_per_database)
        if not 0 <= number < self._regular_databases + len(self._named):
            return None
        regular = number < self._regular_databases
        name = _database_name(number) if regular else self._named_order[number - self._regular_databases]
        return (name, place - 1) if place <= self.object_count(name) else None

    def object_count(self, name: str) -> int:
        """How many tables and views the database holds."""
        if name == SYSTEM:
            return len(SYSTEM_TABLES)
        if name in self._named:
            return len(self._named[name])
        empty = name in EMPTY_DATABASES or self._number(name) is None
        return 0 if empty else self._tables_each + self._views_each

    def kind(self, name: str, position: int) -> Kind:
        """What stands there, without the cost of its placement."""
        if name in self._named:
            return self._named[name][position].kind
        return "table" if name == SYSTEM or position < self._tables_each else "view"

    def placement(self, database_name: str, position: int) -> Placement:
        """What stands at a position below `object_count`."""
        if database_name == SYSTEM:
            table_id = SYSTEM_IDS[position]
            template = SYSTEM_TABLES[table_id]
            return Placement(position, "public", template.name, table_id, template)
        templates = KINDS[_kind(database_name)]
        template = templates[position % len(templates)]
        placed = self._object(database_name, position, template, len(templates))
        table_id = (self.database_id(database_name) or 0) + 1 + position
        return Placement(position, placed.schema, placed.name, table_id, template, placed.kind, placed.keyless)

    def find(self, database_name: str, table_name: str, schema_name: str | None = None) -> Placement | None:
        """The first object of that name, whatever its schema where none is given."""
        placed = (self.placement(database_name, each) for each in self._candidates(database_name, table_name))
        named = (each for each in placed if each.name == table_name)
        return next((each for each in named if schema_name in (None, each.schema)), None)

    def _number(self, name: str) -> int | None:
        """The database's place among all but `system`."""
        if name in self._named:
            return self._regular_databases + self._named_order.index(name)
        number = FIRST_NAMES.index(name) if name in FIRST_NAMES else _trailing_number(name)
        known = number < self._regular_databases and name == _database_name(number)
        return number if known else None

    def _object(self, database_name: str, position: int, template: TableTemplate, templates: int) -> NamedObject:
        if database_name in self._named:
            return self._named[database_name][position]
        if position >= self._tables_each:
            return NamedObject("public", f"recent_{template.name}_{position:04d}", "view")
        if position < templates:
            return NamedObject("public", template.name)
        return NamedObject(SCHEMAS[position % len(SCHEMAS)], f"{template.name}_{position:04d}")

    def _candidates(self, database_name: str, table_name: str) -> Sequence[int]:
        """The positions at which an object of that name may stand: one, where names are computed from positions."""
        positions = range(self.object_count(database_name))
        if database_name == SYSTEM or database_name in self._named:
            return positions
        plain = [template.name for template in KINDS[_kind(database_name)]]
        guess = plain.index(table_name) if table_name in plain else _trailing_number(table_name)
        return positions[guess : guess + 1]


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
