"""The comparison sees every difference, and nothing but differences."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import numpy
import pytest

from crdbexport.records import STREAMS
from crdbexport.testing import records
from crdbexport.testing.comparing import difference

SCHEMA = STREAMS["tables"].schema
(ROW,) = records("tables", size_bytes=1).to_pylist()


def told(*found: dict[str, Any], **options: Any) -> str:
    return difference("tables", SCHEMA, [ROW], found, **options)


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"stats_as_of": ROW["stats_as_of"].isoformat()},
        {"stats_as_of": ROW["stats_as_of"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
        {"stats_as_of": ROW["stats_as_of"].replace(tzinfo=None)},
        {"stats_as_of": ROW["stats_as_of"].astimezone(timezone(timedelta(hours=5)))},
        {"size_bytes": numpy.int64(1)},
        {"store_ids": numpy.array(ROW["store_ids"])},
        {"loaded_at": "a column of the sink's own"},
    ],
)
def test_the_same_in_another_form_is_the_same(same: dict[str, Any]) -> None:
    assert told({**ROW, **same}) == ""


@pytest.mark.parametrize(
    "other",
    [
        {"size_bytes": 1.0},
        {"size_bytes": True},
        {"size_bytes": "1"},
        {"size_bytes": None},
        {"table_name": b"table_0"},
        {"store_ids": ["1", "0"]},
        {"store_ids": "[1, 0]"},
        {"stats_as_of": ROW["stats_as_of"] + timedelta(microseconds=1)},
        {"stats_as_of": "soon"},
        {"run_id": "r2"},
    ],
)
def test_another_value_or_type_is_told_with_its_field(other: dict[str, Any]) -> None:
    assert told({**ROW, **other}).startswith(f"tables: {next(iter(other))} of record {ROW['record_id']} was written as")


def test_a_nullable_field_that_is_missing_is_null() -> None:
    (row,) = records("tables", zone_config=None).to_pylist()
    without = {name: value for name, value in row.items() if name != "zone_config"}
    assert difference("tables", SCHEMA, [row], [without]) == ""


def test_records_are_counted() -> None:
    assert told() == "tables: 1 records should be there and 0 are; 1 are missing and 0 are too many"
    assert told(ROW, ROW) == "tables: 1 records should be there and 2 are; 0 are missing and 1 are too many"
    assert told(ROW, ROW, repeats=True) == ""
    assert told(repeats=True)
