"""Lakes as their readers see them: by the manifests, and by all files of a stream's directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from crdbexport.records import STREAMS, record_id
from crdbexport.sinks.manifest import Manifest
from tests.proof.expecting import FIELDS, Gaps, Records
from tests.sinks.lake_support import leftovers, manifests, promised, visible

Rows = list[dict[str, Any]]


def rows_of(lake: Path, manifest: Manifest, stream: str) -> Rows:
    """The rows of one run, read with PyArrow, or line by line."""
    [file] = [file for file in manifest.files if file.stream == stream]
    path = lake / file.path
    if path.suffix == ".parquet":
        return ds.dataset(path, format="parquet").to_table().to_pylist()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def records_of(lake: Path, manifest: Manifest) -> Records:
    """The records of a run, each of which must be there once, under its id."""
    records: Records = {}
    for stream, fields in FIELDS.items():
        rows = rows_of(lake, manifest, stream)
        for row in rows:
            key = [row[name] for name in STREAMS[stream].key]
            assert row["record_id"] == record_id(manifest.cluster, stream, key)
            assert (row["cluster"], row["run_id"]) == (manifest.cluster, manifest.run_id)
        records[stream] = {tuple(row[name] for name in fields) for row in rows}
        assert len({row["record_id"] for row in rows}) == len(records[stream]) == len(rows) == manifest.rows[stream]
    return records


def gaps_of(manifest: Manifest) -> Gaps:
    return {(gap.database, gap.part, gap.table): gap.reason for gap in manifest.gaps}


def shown(lake: Path, *, unfinished: bool) -> dict[str, Manifest]:
    """What stands in the lake, by logical day; once, but where a run was killed before it removed the one before."""
    found = manifests(lake) if (lake / "_manifests").exists() else []
    by_day = {
        f"{each.logical_time:%Y-%m-%d}": each
        for each in sorted(found, key=lambda each: (each.complete, each.extracted_at))
    }
    assert unfinished or len(by_day) == len(found), "two runs of one snapshot"
    return by_day


def torn(lake: Path) -> Iterator[str]:
    """What a reader of the manifests misses."""
    there = visible(lake) if lake.exists() else {}
    return (path for path, digest in promised(lake).items() if there.get(path) != digest)


def tidy(lake: Path) -> bool:
    """Whether nothing lies about that no run needs."""
    return not lake.exists() or (visible(lake) == promised(lake) and leftovers(lake) == [])
