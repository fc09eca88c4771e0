from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import crdbexport_duckdb
import duckdb
import pyarrow as pa
import pytest
from crdbexport_duckdb import DuckDBSink

from crdbexport import (
    Batch,
    ConfigError,
    Coverage,
    Outcome,
    Receipt,
    Run,
    SinkError,
    SinkRefusedError,
    record_id,
)
from crdbexport.records import ON_REQUEST, STREAMS
from crdbexport.selection import Selection

pytestmark = pytest.mark.slow

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
INT64_MAX = 2**63 - 1
EVERYTHING = Coverage(Selection())
ALL_STREAMS = {name: stream.schema for name, stream in STREAMS.items()}
ONLY_DATABASES = {"databases": ALL_STREAMS["databases"]}
TWO_STREAMS = {name: ALL_STREAMS[name] for name in ("databases", "table_grants")}
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clusters.duckdb"


def run_of(number: int = 1, *, cluster: str = "prod", schemas: Mapping[str, pa.Schema] = TWO_STREAMS) -> Run:
    read_at = FIRST + timedelta(days=number)
    return Run(cluster, f"run-{number}", read_at, read_at, "duckdb", schemas)


def batch_of(run: Run, stream: str, rows: Sequence[Mapping[str, Any]], sequence: int = 0) -> Batch:
    envelope = {
        "cluster": run.cluster,
        "run_id": run.run_id,
        "logical_time": run.logical_time,
        "extracted_at": run.extracted_at,
    }
    full: list[dict[str, Any]] = [
        envelope
        | {"record_id": record_id(run.cluster, stream, [row[name] for name in STREAMS[stream].key])}
        | ({"details": "fetched"} if "details" in run.streams[stream].names else {})
        | dict(row)
        for row in rows
    ]
    return Batch(stream, sequence, pa.RecordBatch.from_pylist(full, schema=run.streams[stream]))


def sink_at(path: Path, *, lock_timeout_seconds: float = 0.0) -> DuckDBSink:
    return DuckDBSink(DuckDBSink.Config(path=path, lock_timeout_seconds=lock_timeout_seconds))


def written(path: Path, run: Run, rows: Rows) -> DuckDBSink:
    """A sink that has taken the rows, each in a batch of its own, and has not committed."""
    sink = sink_at(path)
    sink.preflight(run)
    sink.open(run)
    for stream, records in rows.items():
        for sequence, record in enumerate(records):
            sink.write(batch_of(run, stream, [record], sequence))
    return sink


def outcome_of(run: Run, coverage: Coverage | Mapping[str, Coverage] = EVERYTHING) -> Outcome:
    by_stream = dict.fromkeys(run.streams, coverage) if isinstance(coverage, Coverage) else coverage
    return Outcome(complete=True, gaps=(), coverage=by_stream, rows={})


def deliver(path: Path, run: Run, rows: Rows, coverage: Coverage | Mapping[str, Coverage] = EVERYTHING) -> Receipt:
    sink = written(path, run, rows)
    try:
        return sink.commit(run, outcome_of(run, coverage))
    finally:
        sink.abort()


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        return connection.execute(sql).fetchall()


def contents(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table with its rows, by record id."""
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {
            name: connection.sql(f'FROM "{name}" ORDER BY record_id').to_arrow_table().to_pylist() for name in names
        }


def left_behind(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each != path)


def database(name: str, **own: Any) -> dict[str, Any]:
    return {"database_name": name} | own


def grant(database_name: str, table: str, grantee: str) -> dict[str, Any]:
    return database(database_name, schema_name="public", table_name=table, grantee=grantee, privilege_type="SELECT")


@contextmanager
def held_by_another_process(path: Path, seconds: float = 60.0) -> Iterator[subprocess.Popen[str]]:
    program = (
        "import duckdb, sys, time; connection = duckdb.connect(sys.argv[1]); "
        "print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_first_run_makes_one_table_a_stream_with_every_record(path: Path) -> None:
    run = run_of(schemas=ALL_STREAMS)
    receipt = deliver(path, run, {"databases": [database("bank"), database("shop")]})
    assert set(contents(path)) == set(STREAMS)
    assert query(path, "SELECT cluster, database_name FROM databases ORDER BY ALL") == [
        ("prod", "bank"),
        ("prod", "shop"),
    ]
    rows = {each.stream: each.rows for each in receipt.artifacts}
    assert rows == dict.fromkeys(STREAMS, 0) | {"databases": 2}
    assert receipt.size_bytes == path.stat().st_size
    assert left_behind(path) == []


def test_every_type_of_value_comes_back_as_it_was(path: Path) -> None:
    run = run_of(schemas=ALL_STREAMS)
    bank = database("bank", schema_name="public", table_name="t")
    a_microsecond_later = FIRST + timedelta(microseconds=1)
    rows = {
        "databases": [
            database("max", size_bytes=INT64_MAX, store_ids=[], stats_as_of=a_microsecond_later),
            database("nulls"),
            database("naïve \u202e\U0001f980 'quoted\" \\ \n \0", size_bytes=-1, store_ids=[1, INT64_MAX]),
            database(""),
        ],
        "indexes": [
            bank | {"index_name": "pk", "is_unique": True, "column_names": []},
            bank
            | {"index_name": "by_name", "is_unique": False}
            | {"column_names": ["名前", ""], "directions": ["ASC", "DESC"]},
        ],
        "columns": [
            bank | {"column_name": "id", "ordinal_position": 2**31 - 1} | {"data_type": "INT8", "is_nullable": False}
        ],
    }
    deliver(path, run, rows)
    for stream, records in rows.items():
        sent = sorted(batch_of(run, stream, records).rows(), key=lambda row: str(row["record_id"]))
        assert contents(path)[stream] == sent


def test_columns_have_the_types_and_the_constraints_of_the_stream(path: Path) -> None:
    deliver(path, run_of(schemas=ALL_STREAMS), {})
    duckdb_types = {
        "string": "VARCHAR",
        "int64": "BIGINT",
        "int32": "INTEGER",
        "bool": "BOOLEAN",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "list<int64>": "BIGINT[]",
        "list<string>": "VARCHAR[]",
    }
    for name, stream in STREAMS.items():
        columns = query(
            path,
            "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
            f"WHERE schema_name = 'main' AND table_name = '{name}' ORDER BY column_index",
        )
        assert columns == [(field.name, duckdb_types[field.type], field.nullable) for field in stream.fields]


def test_a_run_without_rows_makes_empty_tables(path: Path) -> None:
    run = run_of(schemas=ALL_STREAMS)
    sink = written(path, run, {})
    sink.write(batch_of(run, "tables", []))
    sink.commit(run, outcome_of(run))
    assert contents(path) == {stream: [] for stream in STREAMS}


def test_a_second_run_replaces_the_records_it_sees_again(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank", size_bytes=1), database("shop", size_bytes=5)]})
    deliver(path, run_of(2), {"databases": [database("bank", size_bytes=2), database("shop", size_bytes=5)]})
    assert query(path, "SELECT database_name, size_bytes, run_id FROM databases ORDER BY ALL") == [
        ("bank", 2, "run-2"),
        ("shop", 5, "run-2"),
    ]


def test_a_revoked_grant_disappears(path: Path) -> None:
    deliver(path, run_of(1), {"table_grants": [grant("bank", "users", who) for who in ("app", "intern")]})
    deliver(path, run_of(2), {"table_grants": [grant("bank", "users", "app")]})
    assert query(path, "SELECT grantee FROM table_grants") == [("app",)]


def test_rows_of_a_table_that_could_not_be_read_stay(path: Path) -> None:
    old = {"table_grants": [grant("bank", "users", "app"), grant("bank", "orders", "app")]}
    deliver(path, run_of(1), old)
    unread = Coverage(Selection(), unread=frozenset({("bank", "public", "users")}))
    deliver(path, run_of(2), {}, unread)
    assert query(path, "SELECT table_name, run_id FROM table_grants") == [("users", "run-1")]


def test_rows_of_a_database_that_could_not_be_read_stay(path: Path) -> None:
    tables = [database(name, schema_name="public", table_name="t") for name in ("bank", "shop")]
    deliver(
        path, run_of(1, schemas=TABLES_FIRST), {"tables": tables, "databases": [database("bank"), database("shop")]}
    )
    unread = Coverage(Selection(), unread=frozenset({("bank",)}))
    deliver(path, run_of(2, schemas=TABLES_FIRST), {}, {"databases": EVERYTHING, "tables": unread})
    assert query(path, "SELECT database_name FROM tables") == [("bank",)]
    assert query(path, "FROM databases") == []


def test_a_run_of_some_databases_leaves_the_others_alone(path: Path) -> None:
    names = ("accounts", "archive", "bank")
    grants = [database(name, grantee="app", privilege_type="CONNECT") for name in names]
    deliver(
        path,
        run_of(1, schemas=ALL_STREAMS),
        {"databases": [database(name) for name in names], "database_grants": grants},
    )
    deliver(
        path, run_of(2, schemas=ALL_STREAMS), {"databases": [database("archive")]}, Coverage(Selection(include=("a*",)))
    )
    assert query(path, "SELECT database_name, run_id FROM databases ORDER BY ALL") == [
        ("archive", "run-2"),
        ("bank", "run-1"),
    ]
    assert query(path, "SELECT database_name FROM database_grants") == [("bank",)]


def test_nothing_is_deleted_where_the_coverage_is_not_known(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank"), database("shop")]})
    deliver(path, run_of(2), {}, {"databases": Coverage(Selection(), known=False)})
    deliver(path, run_of(3), {}, {})
    assert query(path, "SELECT database_name FROM databases ORDER BY ALL") == [("bank",), ("shop",)]


def test_each_cluster_keeps_its_own_rows_of_an_object_that_another_lost(path: Path) -> None:
    for cluster in ("prod", "test"):
        deliver(path, run_of(1, cluster=cluster), {"databases": [database("bank"), database("shop")]})
    deliver(path, run_of(2, cluster="prod"), {"databases": [database("bank")]})
    assert query(path, "SELECT cluster, database_name, run_id FROM databases ORDER BY ALL") == [
        ("prod", "bank", "run-2"),
        ("test", "bank", "run-1"),
        ("test", "shop", "run-1"),
    ]


def test_streams_that_the_run_does_not_export_stay(path: Path) -> None:
    rows = {"databases": [database("bank")], "table_grants": [grant("bank", "users", "app")]}
    deliver(path, run_of(1), rows)
    deliver(path, run_of(2, schemas=ONLY_DATABASES), {})
    assert query(path, "FROM databases") == []
    assert query(path, "SELECT grantee FROM table_grants") == [("app",)]


def test_a_repeat_of_a_run_changes_nothing(path: Path) -> None:
    rows = {"databases": [database("bank", size_bytes=1)], "table_grants": [grant("bank", "users", "app")]}
    first = deliver(path, run_of(), rows)
    before = contents(path)
    again = deliver(path, run_of(), rows)
    assert contents(path) == before
    assert again.artifacts == first.artifacts


def test_a_second_commit_of_the_same_sink_answers_the_same_receipt(path: Path) -> None:
    run = run_of()
    sink = written(path, run, {"databases": [database("bank")]})
    assert sink.commit(run, outcome_of(run)) == sink.commit(run, outcome_of(run))
    sink.abort()
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_run_older_than_what_the_file_holds_is_refused(path: Path) -> None:
    deliver(path, run_of(2), {"table_grants": [grant("bank", "users", "app")]})
    before = contents(path)
    with pytest.raises(SinkRefusedError, match=r"table_grants.*later run.*run-1.*start a new run"):
        deliver(path, run_of(1), {"table_grants": [grant("bank", "users", "intern")]})
    assert contents(path) == before


def test_nothing_is_visible_before_the_commit_and_others_may_read_meanwhile(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank")]})
    run = run_of(2)
    sink = written(path, run, {"databases": [database("shop")]})
    with held_by_another_process(path):
        sink.write(batch_of(run, "databases", [database("more")], 1))
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]
    sink.commit(run, outcome_of(run))
    assert query(path, "SELECT database_name FROM databases ORDER BY ALL") == [("more",), ("shop",)]


def test_an_aborted_first_run_leaves_nothing(path: Path) -> None:
    sink = written(path, run_of(), {"databases": [database("bank")]})
    sink.abort()
    sink.abort()
    assert list(path.parent.iterdir()) == []


def test_an_aborted_second_run_leaves_the_file_as_it_was(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank")]})
    before = path.read_bytes()
    written(path, run_of(2), {"databases": [database("shop")]}).abort()
    assert path.read_bytes() == before
    assert left_behind(path) == []


def test_abort_before_open_does_nothing(path: Path) -> None:
    sink = sink_at(path)
    sink.preflight(run_of())
    sink.abort()
    assert list(path.parent.iterdir()) == []


class FailsAtDatabases(dict[str, Coverage]):
    """A coverage that fails when the stream `databases` is merged."""

    def get(self, stream: str, default: Any = None) -> Any:
        if stream == "databases":
            raise RuntimeError("midway")
        return EVERYTHING


TABLES_FIRST = {name: ALL_STREAMS[name] for name in ("tables", "databases")}


def test_a_commit_that_fails_midway_changes_nothing(path: Path) -> None:
    rows = {"tables": [database("bank", schema_name="s", table_name="t")], "databases": [database("bank")]}
    deliver(path, run_of(1, schemas=TABLES_FIRST), rows)
    before = contents(path)
    run = run_of(2, schemas=TABLES_FIRST)
    sink = written(path, run, {"tables": [database("shop", schema_name="s", table_name="t")]})
    with pytest.raises(RuntimeError, match="midway"):
        sink.commit(run, outcome_of(run, FailsAtDatabases()))
    sink.abort()
    assert contents(path) == before
    assert left_behind(path) == []


def test_a_first_commit_that_fails_leaves_no_file(path: Path) -> None:
    run = run_of(schemas=TABLES_FIRST)
    sink = written(path, run, {"tables": [database("shop", schema_name="s", table_name="t")]})
    with pytest.raises(RuntimeError, match="midway"):
        sink.commit(run, outcome_of(run, FailsAtDatabases()))
    sink.abort()
    assert list(path.parent.iterdir()) == []


def test_a_first_commit_that_fails_keeps_an_empty_database_that_was_there(path: Path) -> None:
    duckdb.connect(str(path)).close()
    run = run_of(schemas=TABLES_FIRST)
    sink = written(path, run, {})
    with pytest.raises(RuntimeError, match="midway"):
        sink.commit(run, outcome_of(run, FailsAtDatabases()))
    sink.abort()
    assert contents(path) == {}


def test_a_nullable_field_that_a_stream_gains_becomes_a_column(path: Path) -> None:
    full = STREAMS["databases"].schema
    older = pa.schema([field for field in full if field.name not in {"store_ids", "stats_as_of"}])
    first = run_of(1, schemas={"databases": older})
    deliver(path, first, {"databases": [database("bank"), database("shop")]})
    new = {"databases": [database("bank", store_ids=[1, 2])]}
    deliver(path, run_of(2), new, Coverage(Selection(include=("bank",))))
    assert query(path, "SELECT database_name, store_ids, size_bytes FROM databases ORDER BY ALL") == [
        ("bank", [1, 2], None),
        ("shop", None, None),
    ]


def test_a_file_from_before_any_field_was_on_request_takes_those_fields(path: Path) -> None:
    full = STREAMS["columns"].schema
    older = pa.schema([field for field in full if field.name not in ON_REQUEST])
    column = database("bank", schema_name="public", table_name="t", column_name="a", ordinal_position=1)
    column |= {"data_type": "INT8", "is_nullable": False}
    deliver(path, run_of(1, schemas={"columns": older}), {"columns": [column, column | {"column_name": "b"}]})
    run = run_of(2, schemas={"columns": full})
    deliver(path, run, {"columns": [column | {"column_default": "1"}]}, Coverage(Selection(include=("shop",))))
    assert query(path, "SELECT column_name, column_default, generation_expression FROM columns ORDER BY ALL") == [
        ("a", "1", None),
        ("b", None, None),
    ]


def test_a_field_that_only_the_file_has_stays_and_is_null_for_new_rows(path: Path) -> None:
    full = STREAMS["databases"].schema
    older = pa.schema([field for field in full if field.name != "store_ids"])
    deliver(path, run_of(1), {"databases": [database("bank", store_ids=[1])]})
    run = run_of(2, schemas={"databases": older})
    deliver(path, run, {"databases": [database("shop")]}, Coverage(Selection(include=("shop",))))
    assert query(path, "SELECT database_name, store_ids FROM databases ORDER BY ALL") == [
        ("bank", [1]),
        ("shop", None),
    ]


def change_by_hand(path: Path, sql: str) -> None:
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("ALTER size_bytes TYPE VARCHAR", 'table "databases": column "size_bytes" has the type VARCHAR'),
        ("DROP COLUMN record_id", 'table "databases": column "record_id" is missing'),
    ],
)
def test_a_table_changed_by_hand_is_refused_by_table_and_column(path: Path, sql: str, complaint: str) -> None:
    deliver(path, run_of(1), {"databases": [database("bank")]})
    change_by_hand(path, f"ALTER TABLE databases {sql}")
    with pytest.raises(SinkRefusedError, match=complaint):
        sink_at(path).preflight(run_of(2))
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_table_changed_by_hand_during_the_run_is_refused_at_commit(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank")]})
    run = run_of(2)
    sink = written(path, run, {"databases": [database("shop")]})
    change_by_hand(path, "ALTER TABLE databases ALTER database_id TYPE VARCHAR")
    with pytest.raises(SinkRefusedError, match='"database_id" has the type VARCHAR and not BIGINT'):
        sink.commit(run, outcome_of(run))
    sink.abort()
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_constraint_added_by_hand_is_refused(path: Path) -> None:
    deliver(path, run_of(1), {"databases": [database("bank", size_bytes=1)]})
    change_by_hand(path, "ALTER TABLE databases ALTER size_bytes SET NOT NULL")
    run = run_of(2)
    sink = written(path, run, {"databases": [database("shop")]})
    with pytest.raises(SinkRefusedError, match="NOT NULL constraint failed"):
        sink.commit(run, outcome_of(run))
    sink.abort()
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_file_that_another_process_has_open_is_refused_by_its_process_id(path: Path) -> None:
    deliver(path, run_of(1), {})
    with held_by_another_process(path) as process:
        with pytest.raises(SinkError, match=rf"is open in another process \(PID {process.pid}\)") as caught:
            sink_at(path).preflight(run_of(2))
        assert caught.value.exit_code == 5
    sink_at(path).preflight(run_of(2))


@pytest.mark.slow
def test_a_commit_waits_for_another_process_to_close_the_file(path: Path) -> None:
    deliver(path, run_of(1), {})
    run = run_of(2)
    sink = sink_at(path, lock_timeout_seconds=30.0)
    sink.preflight(run)
    sink.open(run)
    sink.write(batch_of(run, "databases", [database("bank")]))
    with held_by_another_process(path, seconds=0.3):
        sink.commit(run, outcome_of(run))
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_commit_refused_by_a_held_file_leaves_it_as_it_was(path: Path) -> None:
    run = run_of()
    sink = written(path, run, {"databases": [database("bank")]})
    with held_by_another_process(path):
        with pytest.raises(SinkError, match="is open in another process"):
            sink.commit(run, outcome_of(run))
        assert path.exists()
    sink.commit(run, outcome_of(run))
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_a_file_open_in_this_process_is_refused(path: Path) -> None:
    deliver(path, run_of(1), {})
    with closing(duckdb.connect(str(path))), pytest.raises(SinkError, match="is open in this process"):
        sink_at(path).preflight(run_of(2))


@pytest.mark.parametrize("content", [b"", b"cluster,database\n", b"SQLite format 3\0" + bytes(4096)])
def test_a_file_that_is_no_duckdb_database_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a DuckDB database; name another file"):
        sink_at(path).preflight(run_of())
    assert path.read_bytes() == content


def in_a_file(path: Path) -> Path:
    path.write_text("")
    return path / "below.duckdb"


@pytest.mark.parametrize(
    ("place", "complaint"),
    [(lambda path: path.parent, "is a directory; name a DuckDB file"), (in_a_file, "is not a directory")],
)
def test_a_path_where_no_file_can_be_is_refused(path: Path, place: Callable[[Path], Path], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sink_at(place(path)).preflight(run_of())


def test_missing_directories_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a lake's" / "deep" / "clusters.duckdb"
    deliver(path, run_of(), {"databases": [database("bank")]})
    assert query(path, "SELECT database_name FROM databases") == [("bank",)]


def test_the_word_memory_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deliver(Path(":memory:"), run_of(), {"databases": [database("bank")]})
    assert query(tmp_path / ":memory:", "SELECT database_name FROM databases") == [("bank",)]


def test_leftovers_of_a_killed_attempt_are_cleared(path: Path) -> None:
    run = run_of()
    killed = written(path, run, {})
    [staging] = path.parent.iterdir()
    assert staging.stat().st_mode & 0o777 == 0o700
    killed.abort()
    staging.mkdir()
    (staging / "duckdb_temp_storage-0.tmp").write_text("left over")
    deliver(path, run, {"databases": [database("bank")]})
    assert left_behind(path) == []


@pytest.mark.slow
def test_more_rows_than_memory_holds_spill_and_arrive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdbexport_duckdb.database_file.MEMORY_LIMIT", "24MB")
    run = run_of()
    sink = sink_at(path)
    sink.open(run)
    spilled = False
    for sequence in range(30):
        names = [f"{sequence:03d}-{number:04d}-{'x' * 500}" for number in range(2000)]
        sink.write(batch_of(run, "databases", [database(name) for name in names], sequence))
        spilled = spilled or any(path.with_name(left_behind(path)[0]).iterdir())
    sink.commit(run, outcome_of(run))
    assert spilled
    assert query(path, "SELECT count(*), count(DISTINCT record_id) FROM databases") == [(60_000, 60_000)]
    assert left_behind(path) == []


@pytest.mark.slow
def test_many_runs_do_not_make_the_file_grow(path: Path) -> None:
    rows = {"databases": [database("bank", size_bytes=1), database("shop")]}
    schemas = ONLY_DATABASES
    sizes = [deliver(path, run_of(number, schemas=schemas), rows).size_bytes for number in range(1, 11)]
    assert max(sizes[5:]) <= max(sizes[:5])


def test_two_sinks_on_one_file_name_the_same_place(path: Path) -> None:
    assert list(sink_at(path).directories()) == list(sink_at(path).directories()) == [path]


def test_the_plugin_registers_the_sink_type_duckdb() -> None:
    registered: dict[str, type] = {}
    crdbexport_duckdb.crdbexport_register_sinks(registered.__setitem__)
    assert registered == {"duckdb": DuckDBSink}


def test_the_distribution_declares_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["crdbexport"].items()
    assert EntryPoint(name, module, "crdbexport").load() is crdbexport_duckdb


def test_a_place_that_takes_no_files_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="cannot be written: /proc: "):
        sink_at(Path("/proc/x.duckdb")).preflight(run_of())
