"""The sink under test, for `crdbexport plugins conformance iceberg` and for pytest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from crdbexport import Sink
from crdbexport.config import Secret
from crdbexport.testing import Capabilities, SinkConformance
from crdbexport_iceberg.catalog import opened
from crdbexport_iceberg.sink import IcebergSink


class IcebergConformance(SinkConformance):
    """Every run stays; the catalog is a SQLite file, and the warehouse a directory."""

    capabilities = Capabilities(append_only=True, remote=True)
    remote_options: ClassVar[dict[str, Any]] = {"properties": {"type": "rest", "uri": "http://127.0.0.1:8181"}}
    wrong_options: ClassVar[dict[str, Any]] = {
        "namespace": "a..b",
        "mode": "replace",
        "properties": {"type": "sql", "uri": "sqlite:////dev/null/x.db"},
    }
    mode: ClassVar[Literal["append", "merge"]] = "append"

    def make_sink(self, place: Path) -> Sink:
        return IcebergSink(
            IcebergSink.Config(namespace="crdb", catalog="kit", mode=self.mode, properties=self.properties(place))
        )

    def properties(self, place: Path) -> dict[str, Secret]:
        told = {"type": "sql", "uri": f"sqlite:///{place}/catalog.db", "warehouse": f"file://{place}/warehouse"}
        return {name: Secret(value) for name, value in {**told, "s3.secret-access-key": self.canary}.items()}

    def read_back(self, place: Path) -> dict[str, list[dict[str, Any]]]:
        if not (place / "catalog.db").exists():
            return {}
        with opened("kit", self.properties(place)) as catalog:
            names = catalog.list_tables("crdb") if catalog.namespace_exists("crdb") else []
            return {name[-1]: catalog.load_table(name).scan().to_arrow().to_pylist() for name in names}


class MergeConformance(IcebergConformance):
    """The present state stays."""

    capabilities = Capabilities(upsert=True, remote=True)
    mode: ClassVar[Literal["append", "merge"]] = "merge"
