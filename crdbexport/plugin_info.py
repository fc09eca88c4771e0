"""What is known of a plugin, and of what it offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Generic, Literal, TypeVar

from crdbexport.plugin_choice import distribution_of, metadata_of

FILE_VERSION = "(file)"

Kind = TypeVar("Kind")
State = Literal["loaded", "blocked", "not allowed", "broken"]


@dataclass
class PluginInfo:
    """One plugin as it is told to the user: where it comes from, and what became of it."""

    name: str
    distribution: str
    version: str
    location: str
    state: State = "loaded"
    error: str = ""
    sinks: list[str] = field(default_factory=list)
    transforms: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    deprecated: list[str] = field(default_factory=list)
    """What the plugin uses that will go, a sentence each."""

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}".strip()

    @property
    def key(self) -> str:
        """What pluggy knows it by: two distributions may name their entry points alike, and a file as well."""
        return f"{self.distribution}/{self.name}{'/file' if self.is_file else ''}"

    @property
    def is_file(self) -> bool:
        """Whether it was named by `--plugin`, and is not installed."""
        return self.version == FILE_VERSION


@dataclass(frozen=True)
class Offer(Generic[Kind]):
    """A sink type or transform, and the plugin that offers it."""

    kind: type[Kind]
    plugin: PluginInfo


def info_of_entry_point(entry_point: EntryPoint) -> PluginInfo:
    """What is known of an installed plugin before anything of it is imported."""
    version = metadata_of(entry_point, "Version")
    return PluginInfo(entry_point.name, distribution_of(entry_point), version, entry_point.value)


def info_of_file(path: Path) -> PluginInfo:
    """What is known of a plugin in one file: its name is the file's stem."""
    return PluginInfo(path.stem, path.stem, FILE_VERSION, str(path))
