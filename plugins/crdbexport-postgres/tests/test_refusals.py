from __future__ import annotations

import pyarrow as pa
import pytest
from crdbexport_postgres import PostgresSink
from crdbexport_postgres.meanings import refused_connection
from crdbexport_postgres.unstorable import unstorable

from crdbexport import Batch, ConfigError, CrdbExportError, RecordRefusedError, SinkError, SinkRefusedError
from crdbexport.testing import records, sample_run

HELLO = 'IO: [libpq] Failed to connect: connection to server at "db" (10.0.0.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("stream", "values"),
    [
        ("tables", {"table_name": "a\0b"}),
        ("tables", {"create_statement": "\0"}),
        ("indexes", {"column_names": ["id", "end\0"]}),
        ("indexes", {"stored_columns": [None, "\0"]}),
    ],
)
def test_a_record_with_a_nul_in_any_text_is_found_among_others(stream: str, values: dict[str, object]) -> None:
    good, bad = records(stream, 2), records(stream, first=2, **values)
    batch = pa.Table.from_batches([good, bad, records(stream, 2, first=3)]).combine_chunks().to_batches()[0]
    assert unstorable(batch).to_pylist() == bad.to_pylist()
    assert unstorable(batch.slice(1, 3)).to_pylist() == bad.to_pylist()


def test_records_without_a_nul_are_not_refused() -> None:
    empty = {"column_names": [], "stored_columns": None, "directions": [None, ""]}
    for batch in (records("tables", 3, create_statement=None), records("indexes", **empty), records("columns", 0)):
        assert unstorable(batch).num_rows == 0


def test_a_refused_record_is_named_and_nothing_of_its_batch_is_taken() -> None:
    run = sample_run()
    sink = PostgresSink(PostgresSink.Config(uri="postgresql://db.example/clusters"))
    sink.open(run)
    bad = records("tables", first=1, table_name="a\0b")
    rows = pa.Table.from_batches([records("tables"), bad]).combine_chunks().to_batches()[0]
    try:
        with pytest.raises(RecordRefusedError, match="NUL") as caught:
            sink.write(Batch("tables", 0, rows))
        assert sink._staged.rows("tables") == 0
    finally:
        sink.abort()
    assert caught.value.record_ids == set(bad.column("record_id").to_pylist())


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ('FATAL:  password authentication failed for user "me"', SinkRefusedError),
        ("FATAL:  no pg_hba.conf entry for host", SinkRefusedError),
        ('FATAL:  database "clusters" does not exist', ConfigError),
        ("server does not support SSL, but SSL was required", SinkRefusedError),
        ("SSL error: certificate verify failed", SinkRefusedError),
        ("SSL SYSCALL error: EOF detected", SinkError),
        ("timeout expired", SinkError),
        ("FATAL:  sorry, too many clients already", SinkError),
        ("FATAL:  the database system is starting up", SinkError),
    ],
)
def test_a_refused_connection_is_told_with_where_what_and_what_now(words: str, kind: type[CrdbExportError]) -> None:
    error = refused_connection("postgresql://db/clusters", HELLO + words)
    assert type(error) is kind
    assert str(error).startswith("postgresql://db/clusters: connection to server")
    assert "; " in str(error)


def test_a_connection_of_which_libpq_says_nothing_is_no_matter_of_the_uri() -> None:
    error = refused_connection("postgresql://db/clusters", "IO: [libpq] Failed to connect: ")
    assert type(error) is SinkError
    assert str(error).startswith("postgresql://db/clusters: connection to server failed; ")


def test_what_libpq_quotes_of_a_uri_is_not_told() -> None:
    error = refused_connection("postgresql://...", 'IO: Failed to connect: invalid percent-encoded token: "hid%zz"\n')
    assert isinstance(error, ConfigError)
    assert str(error) == "option uri: invalid percent-encoded token; mend it, and quote user and password"


@pytest.mark.parametrize("schema", ["", "pg_mine", "x" * 64, "é" * 32, "a\0b"])
def test_what_is_no_name_of_a_schema_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match="option schema"):
        PostgresSink(PostgresSink.Config(uri="postgresql://db/x", schema=schema))
