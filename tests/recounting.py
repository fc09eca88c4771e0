"""What was published, counted again from the files: a report is believed only where they say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport import RunReport
from crdbexport.file_names import file_stem

FILE_SINKS = frozenset({"parquet", "jsonl"})


def assert_recounted(report: RunReport) -> None:
    """Every file sink that has committed published as many records of each stream as the report says, each once."""
    for sink in report.sinks:
        files = {each.stream: Path(each.location) for each in sink.artifacts if each.location != "-"}
        if sink.status != "committed" or sink.type not in FILE_SINKS or not files:
            continue
        lake = next(iter(files.values())).parents[2]
        if not (lake / "_manifests" / f"{file_stem(report.cluster, report.run_id)}.json").exists():
            # A later run of the same snapshot has taken its place.
            assert not any(path.exists() for path in files.values()), f"{lake}: files without a manifest"
            continue
        assert set(files) == set(report.streams), f"{lake}: {set(files)} are published"
        for stream, path in files.items():
            ids = _record_ids(path)
            told = sink.streams[str(stream)].delivered
            assert len(ids) == len(set(ids)) == told, f"{path}: {len(ids)} records, and {told} are told as delivered"


def _record_ids(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        ids: list[str] = pq.read_table(path, columns=["record_id"]).column("record_id").to_pylist()
        return ids
    with pa.input_stream(str(path)) as lines:
        return [json.loads(line)["record_id"] for line in lines.read().splitlines()]
