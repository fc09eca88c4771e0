"""The sink under test, for `crdbexport plugins conformance object-store` and for pytest."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport import Sink
from crdbexport.config import Secret
from crdbexport.sinks.manifest import decode_manifest
from crdbexport.testing import SinkConformance
from crdbexport_object_store.options import ObjectStoreConfig
from crdbexport_object_store.sink import ObjectStoreSink

NATIVE = "obstore._obstore"


class ObjectStoreConformance(SinkConformance):
    """In a directory, read as by whoever goes by the manifests."""

    wrong_options: ClassVar[dict[str, Any]] = {"url": "ftp://example.com/lake", "part_bytes": 1}
    canary_variables = (*SinkConformance.canary_variables, "AWS_SECRET_ACCESS_KEY")

    @contextmanager
    def serve(self, place: Path) -> Iterator[None]:
        survive_forks()
        yield

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


def rows_of(path: str, data: bytes) -> list[dict[str, Any]]:
    """The rows of a published file."""
    if path.endswith(".parquet"):
        rows: list[dict[str, Any]] = pq.ParquetFile(pa.BufferReader(data)).read().to_pylist()
        return rows
    compression = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
    with pa.input_stream(pa.BufferReader(data), compression=compression) as lines:
        return [msgspec.json.decode(line) for line in lines.read().splitlines()]


@cache
def survive_forks() -> None:
    """Let the forks in which the kit kills a sink load obstore's library anew.

    Its threads are not in a fork, and there is no way to start others: a copy of the library has threads of its own.
    """
    import obstore  # noqa: F401 (to be found below)

    directory = tempfile.mkdtemp(prefix="crdbexport-conformance-obstore-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    library = Path(shutil.copy(str(sys.modules[NATIVE].__file__), directory))

    def load_anew() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
            del sys.modules[name]
        spec = importlib.util.spec_from_file_location(NATIVE, library)
        assert spec is not None and spec.loader is not None  # noqa: S101 (it is a file that was just made)
        sys.modules[NATIVE] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

    os.register_at_fork(after_in_child=load_anew)
