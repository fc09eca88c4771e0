from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport.pipeline.batches import BATCH_ROWS, Batcher, Envelope, with_record_ids
from crdbexport.records import STREAMS, record_id

LATER = datetime(2026, 2, 1, 3, 4, 5, 678901, UTC)
INT64_MAX = 2**63 - 1


def table(name: str = "t", **known: Any) -> tuple[Any, ...]:
    """A row of `tables`; what is not named is not known."""
    row = {"database_name": "bank", "schema_name": "public", "table_name": name, "details": "fetched", **known}
    return tuple(row.get(field.name) for field in STREAMS["tables"].own_fields)


def only_batch(envelope: Envelope, stream: str, *rows: tuple[Any, ...]) -> pa.RecordBatch:
    batcher = Batcher(envelope)
    assert not list(batcher.add(stream, rows))
    ((name, data),) = batcher.finish()
    assert name == stream
    return data


def grant(number: int) -> tuple[str, str, str]:
    return ("bank", f"user{number}", "CONNECT")


def cut(envelope: Envelope, rows: list[tuple[Any, ...]], at: list[int]) -> list[pa.RecordBatch]:
    """The batches of `rows`, handed over in pieces that end at the given places."""
    batcher = Batcher(envelope, batch_rows=5)
    batches = []
    ends = sorted(each % (len(rows) + 1) for each in at)
    for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        batches += [data for _, data in batcher.add("database_grants", rows[start:end])]
    return [*batches, *(data for _, data in batcher.finish())]


def test_a_batch_has_exactly_the_declared_schema(envelope: Envelope) -> None:
    batch = only_batch(envelope, "tables", table(table_id=1))

    assert batch.schema.equals(STREAMS["tables"].schema, check_metadata=True)
    batch.validate(full=True)


def test_every_row_carries_the_envelope_and_its_own_id(envelope: Envelope) -> None:
    rows = only_batch(envelope, "database_grants", grant(1), grant(2)).to_pylist()

    for number, row in enumerate(rows, start=1):
        assert (row["cluster"], row["run_id"]) == ("c1", "r1")
        assert row["logical_time"] == row["extracted_at"] == envelope.logical_time
        assert row["record_id"] == record_id("c1", "database_grants", grant(number))


def test_the_largest_integer_arrives_exactly(envelope: Envelope) -> None:
    row = only_batch(envelope, "tables", table(size_bytes=INT64_MAX, table_id=2**53 + 1)).to_pylist()[0]

    assert (row["size_bytes"], row["table_id"]) == (INT64_MAX, 2**53 + 1)


def test_an_integer_beyond_int64_is_never_bent_to_fit(envelope: Envelope) -> None:
    with pytest.raises((OverflowError, pa.ArrowInvalid)):
        only_batch(envelope, "tables", table(size_bytes=INT64_MAX + 1))


def test_what_is_not_known_is_null_and_not_zero_or_empty(envelope: Envelope) -> None:
    known = only_batch(envelope, "tables", table(size_bytes=0, store_ids=[])).to_pylist()[0]
    unknown = only_batch(envelope, "tables", table()).to_pylist()[0]

    assert (known["size_bytes"], known["store_ids"]) == (0, [])
    for field in STREAMS["tables"].own_fields:
        if field.nullable:
            assert unknown[field.name] is None


def test_a_column_that_is_null_throughout_keeps_its_type(envelope: Envelope) -> None:
    batch = only_batch(envelope, "tables", table("a"), table("b"))

    assert batch.column("store_ids").type == pa.list_(pa.int64())
    assert batch.column("stats_as_of").type == pa.timestamp("us", "UTC")
    assert batch.column("store_ids").null_count == 2


def test_lists_and_times_keep_their_values(envelope: Envelope) -> None:
    row = only_batch(envelope, "tables", table(store_ids=(3, 1, INT64_MAX), stats_as_of=LATER)).to_pylist()[0]

    assert row["store_ids"] == [3, 1, INT64_MAX]
    assert row["stats_as_of"] == LATER


@pytest.mark.slow
def test_batches_are_cut_at_two_thousand_rows(envelope: Envelope) -> None:
    batcher = Batcher(envelope)
    full = [data.num_rows for _, data in batcher.add("database_grants", [grant(n) for n in range(4_500)])]
    left = [data.num_rows for _, data in batcher.finish()]

    assert (full, left) == ([2_000, 2_000], [500])
    assert BATCH_ROWS == 2_000


def test_a_batch_that_is_exactly_full_leaves_nothing_over(envelope: Envelope) -> None:
    batcher = Batcher(envelope)

    assert not list(batcher.add("database_grants", [grant(n) for n in range(1_999)]))
    assert [data.num_rows for _, data in batcher.add("database_grants", [grant(1_999)])] == [2_000]
    assert list(batcher.finish()) == []


@pytest.mark.slow
@given(st.integers(0, 23), st.lists(st.integers(0, 30), max_size=6))
def test_the_cut_does_not_depend_on_how_the_rows_arrive(count: int, at: list[int]) -> None:
    envelope = Envelope("c1", "r1", LATER, LATER)
    rows = [grant(number) for number in range(count)]

    assert cut(envelope, rows, at) == cut(envelope, rows, [])


def test_what_is_left_comes_in_the_order_of_the_streams(envelope: Envelope) -> None:
    batcher = Batcher(envelope)
    for stream, row in (("tables", table()), ("database_grants", grant(1))):
        assert not list(batcher.add(stream, [row]))

    assert [stream for stream, _ in batcher.finish()] == ["database_grants", "tables"]
    assert list(batcher.finish()) == []


def test_ids_computed_anew_are_those_of_the_names_as_they_stand(envelope: Envelope) -> None:
    batch = only_batch(envelope, "database_grants", grant(1), grant(2))
    column = batch.schema.get_field_index("grantee")
    masked = batch.set_column(column, batch.schema.field(column), pa.array(["x", "y"]))

    result = with_record_ids(STREAMS["database_grants"], "c1", masked)

    assert result.column("record_id").to_pylist() == [
        record_id("c1", "database_grants", ("bank", name, "CONNECT")) for name in ("x", "y")
    ]
    assert result.schema.equals(batch.schema)
    assert result.drop_columns(["record_id"]) == masked.drop_columns(["record_id"])
