"""What must hold of a lake after a power cut, before anybody repairs it and after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq

from crdbexport.disk import make_directories
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.recovery import finish_interrupted
from crdbexport.sinks.retention import sweep
from tests.proof.crash_states import Tree
from tests.sinks.lake_support import a_run, leftovers, manifests, promised, visible


@dataclass(frozen=True)
class Expected:
    """Which runs a lake shows: of each snapshot exactly one, beside those that may be there or not."""

    snapshots: tuple[frozenset[str], ...] = ()
    optional: frozenset[str] = frozenset()

    def problems(self, shown: set[str], *, settled: bool) -> Iterator[str]:
        for snapshot in self.snapshots:
            count = len(shown & snapshot)
            if not count or (settled and count > 1):
                yield f"{count} of the runs {sorted(snapshot)} are there"
        if strangers := shown - self.optional.union(*self.snapshots):
            yield f"the runs {sorted(strangers)} are there"


def of_tree(tree: Tree, whole: dict[str, str], expected: Expected) -> Iterator[str]:
    """What readers of the manifests, and of the stream directories, would find wrong."""
    shown = set()
    for path, data in tree.items():
        top = path.partition("/")[0]
        if data is None or top == "_staging":
            continue
        if top != "_manifests":
            if whole.get(path) != hashlib.sha256(data).hexdigest():
                yield f"{path} is no whole file of a run"
        elif path.endswith(".json"):
            try:
                manifest = json.loads(data)
            except ValueError:
                yield f"{path} is torn"
                continue
            shown.add(manifest["run_id"])
            yield from _missing(tree, manifest)
    yield from expected.problems(shown, settled=False)


def _missing(tree: Tree, manifest: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    for file in manifest["files"]:
        data = tree.get(str(file["path"]))
        if data is None:
            yield f"{file['path']} is missing, which its manifest names"
        elif hashlib.sha256(data).hexdigest() != file["sha256"]:
            yield f"{file['path']} is not what its manifest says"
        elif rows(str(file["path"]), data) != file["rows"]:
            yield f"{file['path']} does not hold {file['rows']} rows"


def rows(path: str, data: bytes) -> int:
    return data.count(b"\n") if path.endswith(".jsonl") else pq.ParquetFile(BytesIO(data)).metadata.num_rows


def next_run(lake: Path) -> None:
    """What every run does before it writes."""
    kind = "parquet" if any(lake.rglob("*.parquet")) else "jsonl"
    Lake(lake).check(a_run("next", cluster="another"), kind)
    with Lake(lake).locked():
        finish_interrupted(Lake(lake))


def a_sweep(lake: Path) -> None:
    make_directories(Lake(lake).staging_root)
    sweep(Lake(lake))
    for probe in Lake(lake).staging_root.glob("_probe*"):
        probe.unlink()  # What a preflight leaves is for the next preflight to remove.


def after(repair: Callable[[Path], None], lake: Path, whole: dict[str, str], expected: Expected) -> Iterator[str]:
    """What is wrong with a lake that was repaired."""
    try:
        repair(lake)
        shown = visible(lake)
        if shown != promised(lake):
            yield "files and manifests tell of different runs"
        if not shown.items() <= whole.items():
            yield "a file is not whole"
        if left := leftovers(lake):
            yield f"{left} are left over"
        yield from expected.problems({each.run_id for each in manifests(lake)}, settled=True)
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
