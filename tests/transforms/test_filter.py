from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport import Batch, record_id
from crdbexport.records import STREAMS
from crdbexport.transforms.filter import Filter

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["public", "Public", "users", "users_2", "pg_temp", "a[b]", "root", "名前"]
GLOBS = ["*", "public", "user*", "USERS", "p?blic", "pg_*", "a[b]", "[!r]*", "nothing"]
FILTERED = {"schema": "schema_name", "table": "table_name", "grantee": "grantee"}
REST: dict[str, dict[str, object]] = {
    "columns": {"ordinal_position": 1, "data_type": "INT8", "is_nullable": False},
    "indexes": {"is_unique": True, "column_names": ["id"]},
    "tables": {"details": "fetched"},
    "databases": {"details": "fetched"},
}

names = st.sampled_from(NAMES)
globs = st.lists(st.sampled_from(GLOBS), max_size=2).map(tuple)
options = st.fixed_dictionaries({f"{way}_{what}": globs for way in ("include", "exclude") for what in FILTERED})


def batch_of(stream_name: str, keys: list[tuple[str, ...]]) -> Batch:
    stream = STREAMS[stream_name]
    envelope = {"cluster": "prod", "run_id": "r1", "logical_time": NOW, "extracted_at": NOW}
    rows = [
        envelope
        | {"record_id": record_id("prod", stream_name, key)}
        | dict(zip(stream.key, key, strict=True))
        | REST.get(stream_name, {})
        for key in keys
    ]
    return Batch(stream_name, 0, pa.RecordBatch.from_pylist(rows, schema=stream.schema))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    stream_name = draw(st.sampled_from(sorted(STREAMS)))
    return batch_of(stream_name, draw(st.lists(st.tuples(*[names] * len(STREAMS[stream_name].key)), max_size=12)))


def filtering(**patterns: Any) -> Filter:
    return Filter(Filter.Config(**patterns))


def should_stay(row: dict[str, Any], patterns: dict[str, tuple[str, ...]]) -> bool:
    for what, field in FILTERED.items():
        if field not in row:
            continue
        hits = {
            way: [glob for glob in patterns[f"{way}_{what}"] if row[field] == glob or fnmatchcase(row[field], glob)]
            for way in ("include", "exclude")
        }
        if hits["exclude"] or (patterns[f"include_{what}"] and not hits["include"]):
            return False
    return True


@pytest.mark.slow
@given(batches(), options)
def test_what_stays_is_what_the_patterns_say_in_the_same_order(
    batch: Batch, patterns: dict[str, tuple[str, ...]]
) -> None:
    kept = filtering(**patterns).apply(batch)
    assert kept.to_pylist() == [row for row in batch.rows() if should_stay(row, patterns)]


@pytest.mark.slow
@given(batches(), options)
def test_the_schema_stays_also_when_every_row_goes(batch: Batch, patterns: dict[str, tuple[str, ...]]) -> None:
    assert filtering(**patterns).apply(batch).schema.equals(batch.data.schema, check_metadata=True)
    nothing = filtering(exclude_schema=("*",), exclude_grantee=("*",)).apply(batch)
    assert nothing.schema.equals(batch.data.schema, check_metadata=True)


def test_an_excluded_grantee_leaves_both_kinds_of_grants() -> None:
    on_tables = batch_of("table_grants", [("bank", "public", "users", who, "SELECT") for who in ("root", "app")])
    on_databases = batch_of("database_grants", [("bank", who, "CONNECT") for who in ("root", "app")])
    without_root = filtering(exclude_grantee=("root",))
    for batch in (on_tables, on_databases):
        assert without_root.apply(batch).column("grantee").to_pylist() == ["app"]


def test_exclusion_wins_over_inclusion() -> None:
    tables = batch_of("tables", [("bank", "public", name) for name in ("users", "users_old", "orders")])
    kept = filtering(include_table=("users*",), exclude_table=("*_old",)).apply(tables)
    assert kept.column("table_name").to_pylist() == ["users"]


def test_patterns_are_case_sensitive() -> None:
    tables = batch_of("tables", [("bank", "public", "Users"), ("bank", "public", "users")])
    assert filtering(exclude_table=("users",)).apply(tables).column("table_name").to_pylist() == ["Users"]


def test_a_stream_without_the_field_passes_untouched() -> None:
    databases = batch_of("databases", [("bank",), ("shop",)])
    assert filtering(include_table=("nothing",), exclude_grantee=("*",)).apply(databases) is databases.data


def test_a_slice_of_a_batch_is_filtered_by_its_own_rows() -> None:
    tables = batch_of("tables", [("bank", "public", name) for name in ("a", "b", "a", "c")])
    sliced = Batch("tables", 0, tables.data.slice(1, 3))
    assert filtering(exclude_table=("b",)).apply(sliced).column("table_name").to_pylist() == ["a", "c"]


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="exclude_tables"):
        msgspec.convert({"exclude_tables": ["users"]}, Filter.Config)
