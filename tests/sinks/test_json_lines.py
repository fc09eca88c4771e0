from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport.records import STREAMS
from crdbexport.sinks.json_lines import json_rows
from tests.sinks.lake_support import INT64_MAX, records


def _one(type_: pa.DataType, value: object) -> bytes:
    [row] = json_rows(pa.record_batch({"x": pa.array([value], type_)}))
    return row


@pytest.mark.parametrize("value", [INT64_MAX, -INT64_MAX - 1, 2**53 + 1, 0])
def test_integers_are_exact_numbers(value: int) -> None:
    assert _one(pa.int64(), value) == b'{"x":%d}' % value


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23T00:00:00.000000Z"),
        (datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC), "2026-11-23T01:02:03.000004Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "1969-12-31T23:59:59.999999Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_times_are_utc_with_six_digits(time: datetime, text: str, zone: str) -> None:
    assert _one(pa.timestamp("us", zone), time) == b'{"x":"%s"}' % text.encode()


def test_coarser_times_have_six_digits_too() -> None:
    time = datetime(2026, 11, 23, tzinfo=UTC)
    assert _one(pa.timestamp("s", "UTC"), time) == b'{"x":"2026-11-23T00:00:00.000000Z"}'


def test_fields_keep_schema_order_and_nulls_are_written() -> None:
    for stream in STREAMS:
        names = STREAMS[stream].schema.names
        rows = json_rows(records(stream, 9))
        assert [list(json.loads(row)) for row in rows] == [names] * 9
    assert b'"size_bytes":null' in json_rows(records("tables", 2))[1]


def test_the_stream_comes_first_where_it_is_asked_for() -> None:
    batch = records("columns", 3)
    plain, named = json_rows(batch), json_rows(batch, stream="columns")
    assert [b'{"stream":"columns",' + row[1:] for row in plain] == named


def test_a_batch_without_rows_has_no_lines() -> None:
    assert json_rows(records("tables", 0)) == []
    assert json_rows(records("tables", 0), stream="tables") == []


@pytest.mark.slow
@given(st.lists(st.none() | st.text(), max_size=5), st.none() | st.lists(st.none() | st.text(), max_size=3))
def test_any_text_comes_back_and_stays_on_its_line(texts: list[str | None], items: list[str | None] | None) -> None:
    batch = pa.record_batch(
        {"text": pa.array(texts, pa.string()), "list": pa.array([items] * len(texts), pa.list_(pa.string()))}
    )
    rows = json_rows(batch)
    assert [json.loads(row) for row in rows] == [{"text": text, "list": items} for text in texts]
    for row in rows:
        assert row.decode().splitlines() == [row.decode()]


@pytest.mark.parametrize("rest", ["same", 'qu"ote', None, "\u2028"])
def test_a_part_of_a_batch_has_the_lines_of_that_part(rest: str | None) -> None:
    batch = pa.record_batch({"name": ["same", "same", rest], "other": ["a", "b", "c"]})
    rows = json_rows(batch)
    assert [json_rows(batch.slice(at, 1)) for at in range(3)] == [[row] for row in rows]
    assert json_rows(batch.slice(0, 2)) == rows[:2]


def test_line_ends_of_unicode_are_escaped_and_their_neighbours_are_not() -> None:
    assert (
        _one(pa.string(), "a\u2028b\u2029c\x85d\u2027e\u0084")
        == '{"x":"a\\u2028b\\u2029c\\u0085d\u2027e\u0084"}'.encode()
    )


def test_values_survive_as_they_are() -> None:
    batch = records("indexes", 8)
    rows = [json.loads(row) for row in json_rows(batch)]
    times = ("logical_time", "extracted_at")
    expected = [{k: v for k, v in row.items() if k not in times} for row in batch.to_pylist()]
    assert [{k: v for k, v in row.items() if k not in times} for row in rows] == expected
