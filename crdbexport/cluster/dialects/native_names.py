"""Names as the native form lists and addresses them: `schema.table`, each part quoted where SQL would quote it."""

from __future__ import annotations

import re
from typing import NamedTuple

from crdbexport.errors import shown

# The server's routes match the decoded path against these; `\w` is ASCII there.
DATABASE_ROUTE = re.compile(r"[0-9A-Za-z_.]+")
PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
PART = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')
DOTS = frozenset({".", ".."})


class ListedName(NamedTuple):
    """A listed table. `schema_quoted` tells whether the server had to quote the schema."""

    schema: str
    table: str
    schema_quoted: bool


def parse_listed(text: str) -> ListedName:
    """The parts of a listed name; raises `ValueError` where it is not two of them with a dot between."""
    schema = PART.match(text)
    if schema is None or text[schema.end() : schema.end() + 1] != ".":
        raise ValueError(f"not schema.table: {shown(text)}")
    table = PART.fullmatch(text, schema.end() + 1)
    if table is None:
        raise ValueError(f"not schema.table: {shown(text)}")
    return ListedName(_unquoted(schema), _unquoted(table), schema[1] is not None)


def _unquoted(part: re.Match[str]) -> str:
    return part[2] if part[1] is None else part[1].replace('""', '"')


def quoted(name: str) -> str:
    """The name as the server lists it when it quotes it."""
    return '"' + name.replace('"', '""') + '"'


def database_segment(name: str) -> str | None:
    """The path segment that names the database; None where the server has no route for the name."""
    return name if DATABASE_ROUTE.fullmatch(name) and name not in DOTS else None


def table_segment(listed: ListedName) -> str | None:
    """The path segment that names the table; None where no request can, or would name another table.

    The server parses the segment as SQL without quotes: upper case is folded, so that `public.Users` would answer for
    `users`, and a reserved word is no schema. A reserved word after the dot parses.
    """
    plain = PLAIN.fullmatch(listed.schema) and PLAIN.fullmatch(listed.table)
    return f"{listed.schema}.{listed.table}" if plain and not listed.schema_quoted else None
