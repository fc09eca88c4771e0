"""The sink under test, for `crdbexport plugins conformance object-store` and for pytest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport import Sink
from crdbexport.config import Secret
from crdbexport.sinks.manifest import decode_manifest
from crdbexport.testing import Capabilities, SinkConformance
from crdbexport_object_store.options import ObjectStoreConfig
from crdbexport_object_store.sink import ObjectStoreSink


class ObjectStoreConformance(SinkConformance):
    """In a directory, read as by whoever goes by the manifests."""

    capabilities = Capabilities(partitioned=True, remote=True)
    remote_options: ClassVar[dict[str, Any]] = {"url": "s3://crdbexport-kit/lake", "access_key_id": "kit"}
    wrong_options: ClassVar[dict[str, Any]] = {"url": "ftp://example.com/lake", "part_bytes": 1}
    canary_variables = (*SinkConformance.canary_variables, "AWS_SECRET_ACCESS_KEY")

    def make_sink(self, place: Path) -> Sink:
        return ObjectStoreSink(self.config(place))

    def config(self, place: Path) -> ObjectStoreConfig:
        """The options for a place."""
        return ObjectStoreConfig(
            url=f"file://{place}/lake",
            secret_access_key=Secret(self.canary),
            store={"session_token": Secret(self.canary)},
        )

    def objects(self, place: Path) -> Mapping[str, bytes]:
        """Every object below the prefix, by its path, without the help of obstore."""
        root = place / "lake"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def read_back(self, place: Path) -> dict[str, list[dict[str, Any]]]:
        objects = self.objects(place)
        manifests = (decode_manifest(data) for path, data in objects.items() if path.startswith("_manifests/"))
        found: dict[str, list[dict[str, Any]]] = {}
        for file in (file for manifest in manifests for file in manifest.files):
            found.setdefault(file.stream, []).extend(rows_of(file.path, objects[file.path]))
        return found

    def read_day(self, place: Path, day: date) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for path, data in self.objects(place).items():
            if f"/date={day}/" in path:
                found.setdefault(path.partition("/")[0], []).extend(rows_of(path, data))
        return found


def rows_of(path: str, data: bytes) -> list[dict[str, Any]]:
    """The rows of a published file."""
    if path.endswith(".parquet"):
        rows: list[dict[str, Any]] = pq.ParquetFile(pa.BufferReader(data)).read().to_pylist()
        return rows
    compression = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
    with pa.input_stream(pa.BufferReader(data), compression=compression) as lines:
        return [msgspec.json.decode(line) for line in lines.read().splitlines()]
