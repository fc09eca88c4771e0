"""`iceberg` beside pyiceberg's own `append` and `overwrite`, which take an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyiceberg.catalog.sql
import pyiceberg.io.pyarrow  # noqa: F401 (imports are no part of what is measured)
from crdbexport_iceberg import IcebergSink
from pyiceberg.catalog import load_catalog
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from crdbexport import Sink
from crdbexport.config import Secret
from tests.benchmarks.sinks.target import Target

CATALOG = "bench"


def properties(root: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


def sink(target: Target) -> Sink:
    told = {name: Secret(value) for name, value in properties(target.directory).items()}
    staging = target.directory / "staging"
    mode: Literal["append", "merge"] = "merge" if target.merges else "append"
    return IcebergSink(
        IcebergSink.Config(namespace="crdb", catalog=CATALOG, properties=told, mode=mode, staging_directory=staging)
    )


def library(target: Target, data: pa.RecordBatchReader) -> None:
    with load_catalog(CATALOG, **properties(target.directory)) as catalog:
        catalog.create_namespace_if_not_exists("crdb")
        table = catalog.create_table_if_not_exists("crdb.columns", data.schema)
        if target.merges:
            of_cluster = EqualTo(term=Reference("cluster"), value=literal(target.run.cluster))
            table.overwrite(data.read_all(), overwrite_filter=of_cluster)
        else:
            table.append(data.read_all())


def run_ids(target: Target) -> Iterator[str]:
    with load_catalog(CATALOG, **properties(target.directory)) as catalog:
        table = catalog.load_table("crdb.columns")
        yield from table.scan(selected_fields=("run_id",)).to_arrow().column(0).to_pylist()
