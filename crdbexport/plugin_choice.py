"""Which installed plugins may come in: decided by their names alone, before anything of them is imported."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint

from crdbexport.errors import PluginError, shown
from crdbexport.hookspecs import PROJECT_NAME

LOAD_VARIABLE = "CRDBEXPORT_LOAD_PLUGINS"
BLOCK_VARIABLE = "CRDBEXPORT_BLOCK_PLUGINS"


def choice_of(installed: Iterable[EntryPoint]) -> Callable[[EntryPoint], bool]:
    """What the two variables let in; the built-in plugin always is.

    Raises `PluginError` for a name to load that is not installed, and for a name to block that is not but looks like
    one that is. Other names may be blocked in advance.
    """
    allowed, blocked = _names(os.environ.get(LOAD_VARIABLE)), _names(os.environ.get(BLOCK_VARIABLE)) or set()
    known = sorted({name for entry_point in installed for name in _names_of(entry_point)})
    for name in sorted(allowed or ()):
        if name not in known:
            raise PluginError(f"{LOAD_VARIABLE}: no plugin {shown(name)}; {_hint(name, known)}")
    for name in sorted(blocked.difference(known)):
        if _near(name, known) and not blocked.intersection(_near(name, known)):
            raise PluginError(f"{BLOCK_VARIABLE}: no plugin {shown(name)}; {_hint(name, known)}")

    def let_in(entry_point: EntryPoint) -> bool:
        names = _names_of(entry_point)
        return is_builtin(entry_point) or not (names & blocked or (allowed is not None and not names & allowed))

    return let_in


def is_builtin(entry_point: EntryPoint) -> bool:
    return _canonical(distribution_of(entry_point)) == PROJECT_NAME


def distribution_of(entry_point: EntryPoint) -> str:
    return metadata_of(entry_point, "Name")


def metadata_of(entry_point: EntryPoint, field: str) -> str:
    # What is left of a distribution that was removed by half has no name any more.
    metadata = entry_point.dist.metadata if entry_point.dist else None
    return metadata[field] if metadata is not None and field in metadata else ""


def _names_of(entry_point: EntryPoint) -> set[str]:
    return {_canonical(entry_point.name), _canonical(distribution_of(entry_point))}


def _hint(name: str, known: list[str]) -> str:
    close = _near(name, known)
    return f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(filter(None, known))}"


def _near(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.8)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(value: str | None) -> set[str] | None:
    return None if value is None else {_canonical(name.strip()) for name in value.split(",") if name.strip()}
