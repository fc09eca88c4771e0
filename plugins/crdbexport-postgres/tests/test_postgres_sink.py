from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from crdbexport_postgres import PostgresSink
from crdbexport_postgres.local_server import LocalServer

from crdbexport import Batch, Coverage, RecordRefusedError, Run, SinkRefusedError
from crdbexport.records import STREAMS
from crdbexport.selection import Selection
from crdbexport.testing import records

pytestmark = pytest.mark.slow
ARun = Callable[..., Run]


def grants(run: Run, *grantees: str, **values: Any) -> list[tuple[str, pa.RecordBatch]]:
    return [("table_grants", records("table_grants", run=run, grantee=each, **values)) for each in grantees]


def contents(target: Any) -> list[tuple[Any, ...]]:
    """Where every row of every table lies, and in which transaction it came there."""
    return [
        row
        for stream in STREAMS
        for row in target.query(f"SELECT '{stream}', record_id, xmin::text, ctid::text FROM crdbexport.{stream}")
    ]


def test_a_first_run_makes_one_table_a_stream_with_its_types(target: Any, a_run: ARun) -> None:
    run = a_run()
    receipt = target.deliver(run, [("databases", records("databases", 2, run=run))])
    types = {
        "string": "text",
        "bool": "boolean",
        "int32": "integer",
        "int64": "bigint",
        "timestamp[us, tz=UTC]": "timestamp with time zone",
        "list<int64>": "bigint[]",
        "list<string>": "text[]",
    }
    for name, stream in STREAMS.items():
        found = target.query(
            "SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute "
            f"WHERE attrelid = 'crdbexport.{name}'::regclass AND attnum > 0 ORDER BY attnum"
        )
        assert found == [(field.name, types[field.type], field.nullable) for field in stream.fields]
    assert {each.stream: each.rows for each in receipt.artifacts} == dict.fromkeys(STREAMS, 0) | {"databases": 2}
    assert receipt.size_bytes > 0
    assert all(target.server.password not in str(each) for each in receipt.artifacts)


def test_a_repeat_of_a_run_touches_no_row(target: Any, a_run: ARun) -> None:
    run = a_run()
    batches = [(stream, records(stream, 3, run=run)) for stream in STREAMS]
    target.deliver(run, batches)
    before = contents(target)
    assert len(before) == 3 * len(STREAMS)
    target.deliver(run, batches)
    assert contents(target) == before


def test_a_second_commit_of_the_same_sink_answers_the_same_receipt(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    run = a_run()
    sink = target.written(run, grants(run, "app"))
    assert sink.commit(run, outcome(run)) == sink.commit(run, outcome(run))
    sink.abort()
    assert target.column("table_grants", "grantee") == ["app"]


def test_a_revoked_grant_disappears(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app", "intern"))
    target.deliver(a_run(2), grants(a_run(2), "app"))
    assert target.query("SELECT grantee, run_id FROM crdbexport.table_grants") == [("app", "run-2")]


def test_rows_stay_where_the_run_did_not_look(target: Any, a_run: ARun) -> None:
    for database, table in (("bank", "seen"), ("bank", "unread"), ("archive", "left_out")):
        run = a_run(1, cluster=f"{database}.{table}")
        target.deliver(run, grants(run, "app", database_name=database, table_name=table))
    target.execute("UPDATE crdbexport.table_grants SET cluster = 'prod'")
    unread = Coverage(Selection(exclude=("arch*",)), unread=frozenset({("bank", "public", "unread")}))
    target.deliver(a_run(2), [], unread)
    assert target.column("table_grants", "table_name") == ["left_out", "unread"]


def test_nothing_is_deleted_where_the_coverage_is_not_known_or_not_told(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    target.deliver(a_run(2), [], Coverage(Selection(), known=False))
    sink = target.written(a_run(3), [])
    sink.commit(a_run(3), replace(outcome(a_run(3)), coverage={}))
    assert target.column("table_grants", "grantee") == ["app"]


def test_more_gone_objects_than_are_looked_at_together_all_disappear(
    target: Any, a_run: ARun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdbexport_postgres.gone.CHUNK", 3)
    run = a_run(1, "tables")
    target.deliver(run, [("tables", records("tables", 10, run=run))])
    later = a_run(2, "tables")
    target.deliver(later, [("tables", records("tables", 1, run=later, first=4))])
    assert target.column("tables", "table_name") == ["table_4"]


def test_what_is_left_of_an_object_with_a_refused_record_stays(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    first, later = a_run(1, "tables"), a_run(2, "tables")
    target.deliver(first, [("tables", records("tables", 2, run=first))])
    sink = target.written(later, [])
    poison = records("tables", run=later, create_statement="a\0b")
    with pytest.raises(RecordRefusedError):
        sink.write(Batch("tables", 0, poison))
    sink.commit(later, outcome(later))
    assert target.column("tables", "table_name") == ["table_0"]


def test_each_cluster_keeps_its_own_rows(target: Any, a_run: ARun) -> None:
    for cluster in ("prod", "test"):
        run = a_run(1, cluster=cluster)
        target.deliver(run, grants(run, "app", "intern"))
    target.deliver(a_run(2), [])
    assert target.column("table_grants", "cluster") == ["test", "test"]


def test_streams_that_the_run_does_not_export_stay(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    target.deliver(a_run(2, "databases"), [])
    assert target.column("table_grants", "grantee") == ["app"]


def test_a_run_older_than_what_is_there_is_refused(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(2), grants(a_run(2), "app"))
    before = contents(target)
    with pytest.raises(SinkRefusedError, match=r'"table_grants".*later run.*run-1 would undo; start a new run'):
        target.deliver(a_run(1), grants(a_run(1), "intern"))
    assert contents(target) == before


def test_a_field_that_the_stream_gains_becomes_a_nullable_column(target: Any, a_run: ARun) -> None:
    run, later = a_run(1, "databases"), a_run(2, "databases")
    older = pa.schema([field for field in run.streams["databases"] if field.name != "store_ids"])
    first = replace(run, streams={"databases": older})
    target.deliver(first, [("databases", records("databases", 2, run=first))])
    new = [("databases", records("databases", run=later, store_ids=[1, 2]))]
    target.deliver(later, new, Coverage(Selection(), known=False))
    assert target.query("SELECT database_name, store_ids FROM crdbexport.databases ORDER BY 1") == [
        ("database_0", [1, 2]),
        ("database_1", None),
    ]


def test_a_column_view_and_index_of_the_users_own_stay(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    target.execute(
        "ALTER TABLE crdbexport.table_grants ADD note text DEFAULT 'new'",
        "UPDATE crdbexport.table_grants SET note = 'mine'",
        "CREATE VIEW crdbexport.who AS SELECT grantee, note FROM crdbexport.table_grants",
        "CREATE INDEX ON crdbexport.table_grants (grantee)",
    )
    target.deliver(a_run(2), grants(a_run(2), "app", "intern"))
    assert target.query("SELECT * FROM crdbexport.who ORDER BY 1") == [("app", "mine"), ("intern", "new")]


def test_names_that_need_quotes_are_quoted(target: Any, a_run: ARun) -> None:
    odd = 'a "b"; DROP SCHEMA public; --'
    target.deliver(a_run(cluster="o'brien\\"), grants(a_run(cluster="o'brien\\"), "app"), schema=odd)
    target.deliver(a_run(2, cluster="o'brien\\"), [], schema=odd)
    assert target.query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'a %'") == [(odd,)]
    assert target.query('SELECT count(*) FROM "a ""b""; DROP SCHEMA public; --".table_grants') == [(0,)]


def test_readers_are_not_held_up_and_see_nothing_before_the_commit(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    sink = target.written(a_run(2), grants(a_run(2), "intern"))
    with closing(dbapi.connect(target.uri)) as reader, closing(reader.cursor()) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for _ in range(2):
            cursor.execute("SELECT grantee FROM crdbexport.table_grants")
            assert cursor.fetchall() == [("app",)]
            sink.commit(a_run(2), outcome(a_run(2)))
    assert target.column("table_grants", "grantee") == ["intern"]


def test_first_runs_of_many_clusters_side_by_side_are_all_there(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    runs = [a_run(1, cluster=f"c{number}") for number in range(4)]
    sinks = [target.written(run, grants(run, "app"), lock_timeout_seconds=20.0) for run in runs]
    errors: list[BaseException] = []

    def commit(sink: PostgresSink, run: Run) -> None:
        try:
            sink.commit(run, outcome(run))
        except BaseException as error:  # noqa: BLE001 (told below)
            errors.append(error)

    threads = [threading.Thread(target=commit, args=pair) for pair in zip(sinks, runs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert target.column("table_grants", "cluster") == ["c0", "c1", "c2", "c3"]


def test_a_run_leaves_no_table_of_its_own_on_the_server(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    target.deliver(a_run(2), [])
    tables = target.query(
        "SELECT relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
    )
    assert [name for (name,) in tables] == sorted(STREAMS)


def test_a_password_by_option_goes_before_the_one_in_the_uri(target: Any, a_run: ARun, server: LocalServer) -> None:
    from crdbexport.config import Secret

    wrong = server.uri(target.database, password="wrong-password")
    target.deliver(a_run(), grants(a_run(), "app"), uri=wrong, password=Secret(server.password))
    assert target.column("table_grants", "grantee") == ["app"]
