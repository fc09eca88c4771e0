"""Names that are hard to carry in a URL or to ask a server for, and the databases that hold them, as data."""

from __future__ import annotations

from typing import NamedTuple

from crdbexport.sandbox.objects import Kind


class NamedObject(NamedTuple):
    """A table or view under a name of its own; without a primary key of its own, the cluster adds a hidden `rowid`."""

    schema: str
    name: str
    kind: Kind = "table"
    keyless: bool = False


HARD_NAMES = (
    "a/b",
    "50%",
    "Prod-Data",
    "?q#f",
    "emoji 🚀",
    "with space",
    'quote"inside',
    "Ünïcode",
    "semi;colon&amp",
    "line\nbreak",
    "trailing.",
    ".",
    "..",
)
TWINS = "twins"
"""The database in which two schemas hold a table of the same name."""

NATIVE_NAMES = "names"
"""The database with every kind of table name that real servers treat in a way of its own."""
TEMPORARY_SCHEMA = "pg_temp_1700000000000000000_1"

# Real servers take the first three by name and refuse the rest: their routes know ASCII letters, digits, _ and the dot.
NATIVE_DATABASES = ("Mixed_Case", "2024_archive", "dotted.name", "node-red", "data lake", "größe", "cost$centre")


def hostile_databases() -> dict[str, tuple[NamedObject, ...]]:
    """Databases whose names are hard to carry in a URL, with their tables.

    The next hard name serves too, so that `.` is a table of an addressable database.
    """
    following = (*HARD_NAMES[1:], HARD_NAMES[0])
    hard = {
        name: (NamedObject("public", "plain"), NamedObject("public", name), NamedObject("audit", after))
        for name, after in zip(HARD_NAMES, following, strict=True)
    }
    twins = (NamedObject("public", "orders"), NamedObject("reporting", "orders"), NamedObject("public", "customers"))
    return {**hard, TWINS: twins}


def native_databases() -> dict[str, tuple[NamedObject, ...]]:
    """Databases whose names, or whose tables' names, SQL must quote or a real server's routes refuse."""
    few = (NamedObject("public", "plain"), NamedObject("public", "Mixed"), NamedObject("audit", "events"))
    return {NATIVE_NAMES: _NATIVE_OBJECTS, **dict.fromkeys(NATIVE_DATABASES, few)}


_NATIVE_OBJECTS = (
    NamedObject("public", "users"),
    NamedObject("public", "Users"),  # Unquoted, SQL folds it to `users`: another table.
    NamedObject("public", "ORDERS"),  # Folds to a name that no table has.
    NamedObject("public", "order"),
    NamedObject("public", "select"),
    NamedObject("public", "2024_sales"),
    NamedObject("public", "2024.plan"),
    NamedObject("public", "order-items"),
    NamedObject("public", "order items"),
    NamedObject("public", "price$"),
    NamedObject("public", 'quote"inside'),
    NamedObject("public", "größe"),
    NamedObject("public", "in/out"),
    NamedObject("public", "a.b"),  # Unquoted, SQL takes it for table `b` of schema `a`.
    NamedObject("a", "b"),
    NamedObject("My Schema", "t"),
    NamedObject("group", "t"),
    NamedObject("Audit", "users"),
    NamedObject("audit", "users"),
    NamedObject("public", "heap", keyless=True),
    NamedObject(TEMPORARY_SCHEMA, "scratch"),
    NamedObject("public", "order_totals", "view"),
    NamedObject("public", "Daily Totals", "materialized view", keyless=True),
)
