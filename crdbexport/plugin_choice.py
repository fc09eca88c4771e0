"""Which plugins may come in: decided by their names alone, before anything of them is imported."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Literal

from crdbexport.errors import PluginError, shown
from crdbexport.hookspecs import PROJECT_NAME

LOAD_VARIABLE = "CRDBEXPORT_LOAD_PLUGINS"
BLOCK_VARIABLE = "CRDBEXPORT_BLOCK_PLUGINS"


@dataclass(frozen=True)
class Choice:
    """What the two variables, or the lack of them, let in."""

    allowed: frozenset[str] | None
    blocked: frozenset[str]

    def verdict(self, *names: str) -> Literal["loaded", "blocked", "not allowed"]:
        """What becomes of a plugin that goes by these names."""
        own = {canonical(name) for name in names}
        if own & self.blocked:
            return "blocked"
        return "loaded" if self.allowed is None or own & self.allowed else "not allowed"


def choice_of(installed: Iterable[EntryPoint], files: Iterable[str] = ()) -> Choice:
    """What the two variables let in, of installed plugins and of `files` by their names.

    Raises `PluginError` for a name to load that is not there, and for a name to block that is not but looks like one
    that is. Other names may be blocked in advance.
    """
    allowed, blocked = _names(os.environ.get(LOAD_VARIABLE)), _names(os.environ.get(BLOCK_VARIABLE)) or frozenset()
    names = (*files, *(name for entry_point in installed for name in names_of(entry_point)))
    known = sorted(set(map(canonical, names)))
    for name in sorted(allowed or ()):
        if name not in known:
            raise PluginError(f"{LOAD_VARIABLE}: no plugin {shown(name)}; {_hint(name, known)}")
    for name in sorted(blocked.difference(known)):
        if _near(name, known) and not blocked.intersection(_near(name, known)):
            raise PluginError(f"{BLOCK_VARIABLE}: no plugin {shown(name)}; {_hint(name, known)}")
    return Choice(allowed, blocked)


def is_builtin(entry_point: EntryPoint) -> bool:
    return canonical(distribution_of(entry_point)) == PROJECT_NAME


def distribution_of(entry_point: EntryPoint) -> str:
    return metadata_of(entry_point, "Name")


def metadata_of(entry_point: EntryPoint, field: str) -> str:
    # What is left of a distribution that was removed by half has no name any more.
    metadata = entry_point.dist.metadata if entry_point.dist else None
    return metadata[field] if metadata is not None and field in metadata else ""


def names_of(entry_point: EntryPoint) -> tuple[str, str]:
    """The names that a plugin may be allowed or blocked by."""
    return entry_point.name, distribution_of(entry_point)


def canonical(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _hint(name: str, known: list[str]) -> str:
    close = _near(name, known)
    return f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(filter(None, known))}"


def _near(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.8)


def _names(value: str | None) -> frozenset[str] | None:
    return None if value is None else frozenset(canonical(name.strip()) for name in value.split(",") if name.strip())
