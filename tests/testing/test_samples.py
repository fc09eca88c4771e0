"""Records for tests are valid, and what the caller asks for."""

from __future__ import annotations

import pytest

from crdbexport import record_id
from crdbexport.records import STREAMS
from crdbexport.testing import records, sample_run
from crdbexport.testing.samples import some_of_everything


@pytest.mark.parametrize("stream", STREAMS)
def test_records_have_the_schema_and_the_ids_of_their_stream(stream: str) -> None:
    run = sample_run("r9", cluster="prod")
    data = records(stream, 4, run=run)
    assert data.schema == STREAMS[stream].schema
    data.validate(full=True)
    rows = data.to_pylist()
    assert {(row["cluster"], row["run_id"], row["extracted_at"]) for row in rows} == {("prod", "r9", run.extracted_at)}
    assert [row["record_id"] for row in rows] == [
        record_id("prod", stream, [row[name] for name in STREAMS[stream].key]) for row in rows
    ]
    assert len({row["record_id"] for row in rows}) == 4
    assert all(value is not None for row in rows for value in row.values())


def test_fields_can_be_given() -> None:
    assert [row["size_bytes"] for row in records("tables", 3, size_bytes=None).to_pylist()] == [None] * 3
    (row,) = records("tables", schema_name="odd").to_pylist()
    assert row["record_id"] == record_id("c1", "tables", ["bank", "odd", "table_0"])


def test_equal_numbers_are_equal_objects() -> None:
    first, later = records("tables", 3), records("tables", 2, run=sample_run("r2"), first=1)
    assert later.column("record_id").to_pylist() == first.column("record_id").to_pylist()[1:]


def test_some_of_everything_has_every_stream_twice() -> None:
    batches = some_of_everything(sample_run())
    assert sorted(name for name, _ in batches) == sorted([*STREAMS, *STREAMS])


def test_the_names_are_there_whatever_was_imported_before() -> None:
    import crdbexport.testing

    assert callable(crdbexport.testing.records)
    assert {name: getattr(crdbexport.testing, name) for name in crdbexport.testing.__all__}
    with pytest.raises(AttributeError, match="no attribute 'recrods'"):
        _ = crdbexport.testing.recrods
