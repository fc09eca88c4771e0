from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdbexport.file_names import MAX_PART_BYTES, escaped, file_stem, unescaped
from tests.sinks.lake_support import a_run, deliver, parquet, records

NAMES = st.text(max_size=60) | st.text(alphabet="abA.-_~%/0", max_size=130)
LONGEST_SUFFIX = ".jsonl.zst"


@given(NAMES, NAMES)
@example(".", "%2E")
@example("a~b", "a%7Eb")
@example("A", "a")
@example("é", "e\u0301")
@example("x" * 101, "x" * 102)
@example("con", "%63on")
@example("con", "CON")
def test_different_parts_have_different_names(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) == (one == other)


@given(NAMES, NAMES, NAMES, NAMES)
@example("a.b", "c", "a", "b.c")
@example("", "a", "a", "")
def test_different_runs_have_different_stems(a: str, b: str, c: str, d: str) -> None:
    assert (file_stem(a, b) == file_stem(c, d)) == ((a, b) == (c, d))


@given(st.text(min_size=1, max_size=11))
def test_what_is_not_cut_can_be_decoded(part: str) -> None:
    assert unescaped(escaped(part)) == part


@given(st.text(max_size=400), st.text(max_size=400))
@example("\0" * 100, "../" * 100)
@example("\U0001f600" * 100, "..")
@example("CON", "con")
def test_stems_are_safe_and_short_for_any_names(cluster: str, run_id: str) -> None:
    stem = file_stem(cluster, run_id)
    assert len(stem.encode() + LONGEST_SUFFIX.encode()) <= 255
    assert stem[0] not in "._-"
    assert stem.count(".") == 1
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)\.", stem)
    assert set(stem) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%~.")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("prod", "prod"),
        ("eu/prod 50%", "eu%2Fprod%2050%25"),
        ("..", "%2E%2E"),
        ("_x_", "%5Fx_"),
        ("-x-", "%2Dx-"),
        ("a\x00\n*[=", "a%00%0A%2A%5B%3D"),
        ("é", "%C3%A9"),
        ("__HIVE_DEFAULT_PARTITION__", "%5F_HIVE_DEFAULT_PARTITION__"),
        ("trailing. ", "trailing%2E%20"),
        ("con", "%63on"),
        ("NUL", "%4EUL"),
        ("Lpt1", "%4Cpt1"),
        ("com10", "com10"),
        ("console", "console"),
        ("aux.x", "aux%2Ex"),
    ],
)
def test_names_read_like_percent_encoding(part: str, name: str) -> None:
    assert escaped(part) == name


def test_long_and_empty_parts_end_in_a_digest() -> None:
    for part in ("", "x" * 101, "é" * 40):
        name = escaped(part)
        prefix, mark, digest = name.partition("~")
        assert mark
        assert len(digest) == 16
        assert len(name) <= MAX_PART_BYTES
        assert "%" not in prefix[-2:]
        assert unescaped(name) is None
    assert escaped("x" * 100) == "x" * 100


@pytest.mark.parametrize(
    "cluster",
    ["eu/prod 50%", "__HIVE_DEFAULT_PARTITION__", "nul", "_hidden", ".hidden", "-dash", "a=b", "x" * 300, "~", "ü[*]?"],
)
def test_every_reader_reads_files_of_hostile_names(tmp_path: Path, cluster: str) -> None:
    run = a_run("scheduled__2026-11-23T00:00:00+00:00", cluster=cluster, streams=["tables"])
    deliver(parquet(tmp_path), run, [("tables", records("tables", 5))])
    tables = tmp_path / "tables"
    counts = {
        "pyarrow": ds.dataset(tables, format="parquet").count_rows(),
        "pyarrow hive": ds.dataset(tables, format="parquet", partitioning="hive").count_rows(),
        "polars directory": pl.read_parquet(tables).height,
        "polars glob": pl.read_parquet(f"{tables}/**/*.parquet").height,
        "pandas": len(pd.read_parquet(tables)),
        "duckdb": duckdb.sql(f"SELECT count(*) FROM '{tables}/**/*.parquet'").fetchall()[0][0],
    }
    assert counts == dict.fromkeys(counts, 5)
