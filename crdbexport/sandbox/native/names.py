"""Names as SQL writes them, and what SQL takes a requested name for."""

from __future__ import annotations

import re

_RESERVED_WORDS = """
all analyse analyze and any array as asc asymmetric both case cast check collate column concurrently
constraint create current_catalog current_date current_role current_schema current_time current_timestamp
current_user default deferrable desc distinct do else end except false fetch for foreign from grant group
having in index initially intersect into lateral leading limit localtime localtimestamp not nothing null
offset on only or order placing primary references returning select session_user some symmetric table then to
trailing true union unique user using variadic when where window with
"""
RESERVED = frozenset(_RESERVED_WORDS.split())
PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
MOST_PARTS = 3


def quoted(name: str) -> str:
    """The name as a list shows it: in double quotes unless it is plain, lower-case and not reserved."""
    if PLAIN.fullmatch(name) and name not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def listed(schema: str, name: str) -> str:
    """A table as `tables/` lists it."""
    return f"{quoted(schema)}.{quoted(name)}"


def resolved(requested: str) -> tuple[str, str]:
    """Schema and table that SQL takes a requested name for.

    Unquoted parts fold to lower case, and after a dot any keyword may stand. What does not parse is quoted as a whole
    and so becomes a name without a schema, which means `public`. Of three parts, the first gives way to the database.
    """
    parts = requested.split(".")
    identifiers = all(IDENTIFIER.fullmatch(part) for part in parts)
    if len(parts) > MOST_PARTS or not identifiers or parts[0].lower() in RESERVED:
        return "public", requested
    folded = [part.lower() for part in parts]
    return (folded[-2], folded[-1]) if len(folded) > 1 else ("public", folded[0])
