"""Keeping a lake small: old snapshots go, and so does what belongs to no run.

A run is removed as a superseded one is: its manifest first, into staging, then its files; what a crash leaves half
done is finished by the next run to the directory, or by `sweep`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime

from crdbexport.disk import make_directories, remove_if_empty, storage_errors
from crdbexport.errors import ConfigError
from crdbexport.records import STREAMS
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest
from crdbexport.sinks.recovery import clear_staging, finish_interrupted, remove_files, set_aside
from crdbexport.sinks.strays import run_stem, stray_files

# A stem of its own in staging: those of runs have a dot.
_EXPIRED = "expired"
_DAY = re.compile(r"date=\d{4}-\d\d-\d\d")


def expire(lake: Lake, keep: int, *, cluster: str | None = None, dry_run: bool = False) -> list[Manifest]:
    """Keep the newest `keep` snapshots of each cluster, or of one, by logical time; the runs that were removed.

    A dry run changes nothing, and tells what would be removed. Raises ConfigError when `keep` is less than 1, nothing
    was published here, or a manifest is damaged; StorageError when the disk fails; RunHeldError when the lake's lock
    cannot be had. Files that cannot be removed at once are logged, and removed by the next run.
    """
    if keep < 1:
        raise ConfigError(f"cannot keep {keep} snapshots of a cluster; keep at least 1")
    lake.must_exist()
    with storage_errors(lake.root), lake.locked():
        if not dry_run:
            finish_interrupted(lake)
        expired = _expired(list(lake.manifests_of(cluster)), keep)
        if expired and not dry_run:
            make_directories(lake.staging(_EXPIRED))
            set_aside(lake, _EXPIRED, expired)
            clear_staging(lake, _EXPIRED)
        return expired


def _expired(manifests: list[Manifest], keep: int) -> list[Manifest]:
    times: defaultdict[str, set[datetime]] = defaultdict(set)
    for each in manifests:
        times[each.cluster].add(each.logical_time)
    kept = {cluster: sorted(known)[-keep:] for cluster, known in times.items()}
    return [each for each in manifests if each.logical_time not in kept[each.cluster]]


def sweep(lake: Lake, *, dry_run: bool = False) -> list[str]:
    """Finish what dead processes left half done, and remove what belongs to no run; the files that were removed.

    These are files in the stream directories that are named as a sink names them, and that neither a manifest nor a
    living process's run owns; strangers' files stay. A dry run changes nothing, as with `expire`. Raises as `expire`
    does, but for damaged manifests of published runs, whose files stay; and ConfigError, before it removes a file, when
    there is not one manifest to go by.
    """
    lake.must_exist()
    with storage_errors(lake.root), lake.locked():
        if not dry_run:
            finish_interrupted(lake)
        strays = [path for path in stray_files(lake) if _is_nobodys(lake, path)]
        if strays and not lake.manifest_paths():
            raise ConfigError(
                f"{lake.root}: holds files of runs, and no manifest; restore {lake.manifests}, or remove the files"
            )
        if not dry_run:
            remove_files(lake.root / path for path in strays)
            _remove_empty_days(lake)
        return strays


def _is_nobodys(lake: Lake, path: str) -> bool:
    stem = run_stem(path)
    return stem is not None and not lake.is_held(stem)


def _remove_empty_days(lake: Lake) -> None:
    for stream in STREAMS:
        for day in (lake.root / stream).glob("date=*"):
            if _DAY.fullmatch(day.name):
                remove_if_empty(day)
