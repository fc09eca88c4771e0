"""Writes a whole plugin distribution out of the template beside this file (extra `new`)."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from crdbexport import __version__
from crdbexport.errors import ConfigError, shown

PluginKind = Literal["sink", "transform", "observer"]

TEMPLATE = Path(__file__).parent / "template"
PREFIX = "crdbexport-"
# Of what a distribution may be called (PEP 508), that which also begins names in Python.
_NAME = re.compile(r"[a-z]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class Naming:
    """The names that follow from the one that the author gives: `kafka` and `crdbexport-kafka` mean the same."""

    kind: PluginKind
    distribution: str
    package: str
    type: str
    class_name: str
    variable: str


def naming(name: str, kind: PluginKind) -> Naming:
    """All names of a new plugin; raises `ConfigError` for what cannot be the name of a distribution."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot be the name of a distribution; take ASCII letters, digits, '-', '_' and '.', with a "
            "letter first and a letter or digit last"
        )
    type_name = re.sub(r"[-_.]+", "-", name).lower().removeprefix(PREFIX)
    if not _NAME.fullmatch(type_name) or type_name == PREFIX.rstrip("-"):
        raise ConfigError(f"{shown(name)} leaves no name for the {kind}; give one such as kafka or {PREFIX}kafka")
    distribution = f"{PREFIX}{type_name}"
    camel = "".join(part.capitalize() for part in type_name.split("-"))
    package = distribution.replace("-", "_")
    return Naming(kind, distribution, package, type_name, f"{camel}{kind.capitalize()}", f"{package.upper()}_PATH")


def write_distribution(names: Naming, destination: Path) -> list[Path]:
    """Write the distribution, all of it or nothing; answers its files.

    Raises `ConfigError` where the destination is not an empty or new directory, or copier is missing.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ConfigError(f"{destination} is there and not empty; give another with --output DIR")
    parent = destination.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{names.distribution}-", dir=parent) as work:
            written = Path(work) / names.distribution
            _render(names, written)
            written.rename(destination)
    except OSError as error:
        raise ConfigError(f"{destination}: cannot be written ({error.strerror}); give another with --output") from error
    return sorted(path for path in destination.rglob("*") if path.is_file())


def _render(names: Naming, destination: Path) -> None:
    try:
        from copier import run_copy
    except ImportError as error:
        raise ConfigError("copier is not installed; install it with: pip install 'crdbexport[new]'") from error
    version = ".".join(__version__.split(".")[:2])
    for part in ("every", names.kind):
        answers = {**asdict(names), "part": part, "crdbexport_version": version}
        # A template that is shipped asks nothing, runs nothing and fetches nothing.
        run_copy(str(TEMPLATE), destination, answers, defaults=True, overwrite=True, quiet=True, skip_tasks=True)
