"""The sink under test, for `crdbexport plugins conformance duckdb` and for pytest."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from crdbexport import Sink
from crdbexport.testing import Capabilities, SinkConformance
from crdbexport_duckdb.sink import DuckDBSink


class DuckDBConformance(SinkConformance):
    """Every table of the file is a stream."""

    capabilities = Capabilities(upsert=True)
    wrong_options: ClassVar[dict[str, Any]] = {"path": "/dev/null/clusters.duckdb"}

    def make_sink(self, place: Path) -> Sink:
        return DuckDBSink(DuckDBSink.Config(path=place / "clusters.duckdb"))

    def read_back(self, place: Path) -> dict[str, list[dict[str, Any]]]:
        path = place / "clusters.duckdb"
        if not path.exists():
            return {}
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            return {name: connection.table(f'"{name}"').to_arrow_table().to_pylist() for name in names}
