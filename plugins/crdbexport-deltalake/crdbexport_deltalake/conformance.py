"""The sink under test, for `crdbexport plugins conformance deltalake` and for pytest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from crdbexport import Sink
from crdbexport.config import Secret
from crdbexport.testing import Capabilities, SinkConformance
from crdbexport_deltalake.sink import DeltaLakeSink


class DeltaLakeConformance(SinkConformance):
    """Every run stays; tables are on this machine, but for the check that has no network."""

    capabilities = Capabilities(append_only=True, remote=True)
    remote_options: ClassVar[dict[str, Any]] = {
        "root": "s3://crdbexport-kit/lake",
        "storage_options": {"aws_access_key_id": "kit", "aws_secret_access_key": "kit", "aws_region": "us-east-1"},
    }
    wrong_options: ClassVar[dict[str, Any]] = {"root": "/dev/null/lake", "mode": "replace"}
    mode: ClassVar[Literal["append", "merge"]] = "append"

    def make_sink(self, place: Path) -> Sink:
        options = {"aws_secret_access_key": Secret(self.canary)}
        return DeltaLakeSink(DeltaLakeSink.Config(root=str(place / "lake"), mode=self.mode, storage_options=options))

    def read_back(self, place: Path) -> dict[str, list[dict[str, Any]]]:
        from deltalake import DeltaTable

        tables = [each.parent for each in (place / "lake").glob("*/_delta_log")]
        return {each.name: pa.table(DeltaTable(each).scan()).to_pylist() for each in tables}


class MergeConformance(DeltaLakeConformance):
    """The present state stays."""

    capabilities = Capabilities(upsert=True, remote=True)
    mode: ClassVar[Literal["append", "merge"]] = "merge"
