"""What the README tells readers to do is done, in a directory in the place of the bucket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from crdbexport_object_store.options import ObjectStoreConfig

from crdbexport.testing.samples import sample_run

README = Path(__file__).parents[1] / "README.md"


def block(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert "s3://lake/crdb" in text
    return str(text)


@pytest.fixture
def lake(tmp_path: Path, deliver: Any) -> Path:
    """A lake with a snapshot of five tables, and a file that a dead process has left."""
    lake = tmp_path / "lake"
    deliver(ObjectStoreConfig(url=f"file://{lake}"), sample_run())
    [whole] = (lake / "tables").rglob("*.parquet")
    whole.with_name("c1.r0.0000000000000000.parquet").write_bytes(whole.read_bytes())
    return lake


def test_duckdb_reads_only_what_is_committed(lake: Path) -> None:
    with duckdb.connect() as connection:
        text = block("sql").replace("s3://lake/crdb", str(lake))
        for statement in text.split(";")[:2]:
            connection.execute(statement)
        [(cluster, name, size)] = connection.fetchall()
    assert (cluster, name, size) == ("c1", "bank", sum(range(1000, 1005)))


def test_pyarrow_reads_only_what_is_committed(lake: Path) -> None:
    names: dict[str, Any] = {}
    exec(block("python").replace("s3://lake/crdb", f"file://{lake}"), names)
    assert names["tables"].count_rows() == 5
