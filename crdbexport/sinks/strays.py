"""Files in the stream directories that belong to no run, though readers of those directories read them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from crdbexport.errors import ConfigError
from crdbexport.records import STREAMS
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import read_manifest

_PART = r"[A-Za-z0-9%~][A-Za-z0-9_%~-]*"
_OURS = re.compile(
    rf"(?:{'|'.join(STREAMS)})/date=\d{{4}}-\d\d-\d\d/(?P<stem>{_PART}\.{_PART})\.(?:parquet|jsonl(?:\.gz|\.zst)?)"
)


def run_stem(path: str) -> str | None:
    """The run that a file of a lake belongs to by its name; None when no sink names its files so."""
    found = _OURS.fullmatch(path)
    return found["stem"] if found else None


def stray_files(lake: Lake) -> list[str]:
    """The paths of files that no manifest names: neither published, nor prepared, nor set aside.

    Where a run's manifest cannot be read, all files with that run's name are taken for its own. Certain only under
    the lake's lock.
    """
    found = set(_stream_files(lake))
    named, unread = _named_files(lake)
    return sorted(path for path in found - named if run_stem(path) not in unread)


def _stream_files(lake: Lake) -> Iterator[str]:
    for stream in STREAMS:
        for directory, _, names in os.walk(lake.root / stream, onerror=_raise_unless_gone):
            for name in names:
                yield (Path(directory) / name).relative_to(lake.root).as_posix()


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _named_files(lake: Lake) -> tuple[set[str], set[str]]:
    """The files that manifests name, and the runs whose manifests cannot be read."""
    named: set[str] = set()
    unread: set[str] = set()
    for stem, path in _manifests(lake):
        try:
            named.update(file.path for file in read_manifest(path).files)
        except FileNotFoundError:
            continue  # Superseded meanwhile, by a process that holds the lock.
        except (ConfigError, OSError):
            unread.add(stem)
    return named, unread


def _manifests(lake: Lake) -> Iterator[tuple[str, Path]]:
    for path in lake.manifest_paths():
        yield path.stem, path
    for stem in lake.unfinished():
        yield stem, lake.prepared(stem)
        yield from lake.set_aside(stem).items()
