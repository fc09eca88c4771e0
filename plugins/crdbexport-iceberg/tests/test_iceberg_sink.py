from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import crdbexport_iceberg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crdbexport_iceberg import IcebergSink, stream_table
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table, Transaction
from pyiceberg.types import StringType

from crdbexport import (
    Batch,
    ConfigError,
    Coverage,
    ExportConfig,
    Outcome,
    Receipt,
    Run,
    SinkError,
    SinkRefusedError,
    export,
)
from crdbexport.config import Secret, convert
from crdbexport.selection import Selection
from crdbexport.sinks import tables
from crdbexport.sinks.tables import Delivery, commit_id
from crdbexport.testing import records, sample_run

EVERYTHING = Coverage(Selection())
Batches = Sequence[tuple[str, pa.RecordBatch]]


def run_of(number: int = 1, *, cluster: str = "c1", streams: Sequence[str] = ("databases", "table_grants")) -> Run:
    run = sample_run(f"r{number}", cluster=cluster, streams=streams)
    return replace(run, extracted_at=run.extracted_at + timedelta(hours=number))


def some(run: Run, *counts: int) -> Batches:
    """So many records of the run's streams, in their order."""
    return [(stream, records(stream, count, run=run)) for stream, count in zip(run.streams, counts, strict=False)]


def properties(root: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


def sink_at(root: Path, mode: str = "append", **options: Any) -> IcebergSink:
    told = {"namespace": "lake.crdb", "catalog": "test", "mode": mode, "properties": properties(root), **options}
    return IcebergSink(convert(told, IcebergSink.Config, where="test"))


def written(sink: IcebergSink, run: Run, batches: Batches) -> IcebergSink:
    sink.preflight(run)
    sink.open(run)
    for sequence, (stream, data) in enumerate(batches):
        sink.write(Batch(stream, sequence, data))
    return sink


def outcome_of(run: Run, coverage: Coverage = EVERYTHING) -> Outcome:
    return Outcome(True, (), dict.fromkeys(run.streams, coverage), {})


def deliver(root: Path, run: Run, batches: Batches, mode: str = "append", coverage: Coverage = EVERYTHING) -> Receipt:
    sink = written(sink_at(root, mode), run, batches)
    try:
        return sink.commit(run, outcome_of(run, coverage))
    finally:
        sink.abort()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with load_catalog("test", **properties(tmp_path)) as catalog:
        yield catalog


def table_of(root: Path, stream: str = "databases") -> Table:
    with load_catalog("test", **properties(root)) as catalog:
        return catalog.load_table(f"lake.crdb.{stream}")


def rows(root: Path, stream: str = "databases") -> list[dict[str, Any]]:
    """The stream's rows, read by PyArrow from the files that the current snapshot names."""
    files = table_of(root, stream).inspect.files().column("file_path").to_pylist()
    return [row for path in files for row in pq.read_table(path.removeprefix("file://")).to_pylist()]


def names(root: Path, stream: str = "databases", field: str = "database_name") -> list[tuple[str, str]]:
    return sorted((row["run_id"], row[field]) for row in rows(root, stream))


def files(root: Path) -> set[Path]:
    return {each.relative_to(root) for each in root.rglob("*") if each.is_file()}


def test_every_run_is_kept_and_told_apart_by_the_envelope(tmp_path: Path) -> None:
    for number in (1, 2):
        deliver(tmp_path, run_of(number), some(run_of(number), 2))
    assert names(tmp_path) == [("r1", "database_0"), ("r1", "database_1"), ("r2", "database_0"), ("r2", "database_1")]


def test_an_older_run_that_is_delivered_late_is_kept_too(tmp_path: Path) -> None:
    for number in (2, 1):
        deliver(tmp_path, run_of(number), some(run_of(number), 1))
    assert names(tmp_path) == [("r1", "database_0"), ("r2", "database_0")]


def changes(root: Path) -> int:
    """How often the metadata of the table was changed: once when it was made, then by each commit."""
    return len(table_of(root).metadata.metadata_log) + 1


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_run_is_one_commit_a_stream_and_its_repeat_none(tmp_path: Path, mode: str) -> None:
    first = deliver(tmp_path, run_of(), some(run_of(), 2, 3), mode)
    before = files(tmp_path)
    assert changes(tmp_path) == 2
    again = deliver(tmp_path, run_of(), some(run_of(), 2, 3), mode)
    assert files(tmp_path) == before
    assert [(each.stream, each.rows) for each in again.artifacts] == [("databases", 2), ("table_grants", 3)]
    assert [(each.stream, each.rows) for each in first.artifacts] == [("databases", 2), ("table_grants", 3)]
    assert first.size_bytes == sum(each.stat().st_size for each in tmp_path.rglob("*.parquet")) > 0


def test_replacing_the_present_state_is_one_commit_without_rewriting_a_file(tmp_path: Path) -> None:
    for number in (1, 2):
        for cluster in ("\U0001f600" * 20 + "a", "\U0001f600" * 20 + "b"):
            run = run_of(number, cluster=cluster, streams=["databases"])
            deliver(tmp_path, run, some(run, 1), "merge")
    assert changes(tmp_path) == 5
    assert not [each for each in table_of(tmp_path).snapshots() if each.summary.operation.value == "overwrite"]
    assert len(rows(tmp_path)) == 2


def test_the_id_of_the_commit_stands_in_its_snapshot(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(), some(run_of(), 1))
    assert table_of(tmp_path).current_snapshot().summary[stream_table.COMMIT_ID] == commit_id(run_of())


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_run_whose_snapshot_has_expired_is_not_added_again(tmp_path: Path, catalog: Catalog, mode: str) -> None:
    for number in (1, 2):
        run = run_of(number, cluster=f"c{number}")
        deliver(tmp_path, run, some(run, 1), mode)
    table = catalog.load_table("lake.crdb.databases")
    table.maintenance.expire_snapshots().by_id(table.snapshots()[0].snapshot_id).commit()
    assert len(table_of(tmp_path).snapshots()) == 1
    first = run_of(1, cluster="c1")
    deliver(tmp_path, first, some(first, 1), mode)
    assert names(tmp_path) == [("r1", "database_0"), ("r2", "database_0")]


def test_a_stream_without_records_has_its_table(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(), [])
    assert [field.name for field in table_of(tmp_path).schema().fields] == run_of().streams["databases"].names
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_second_commit_of_the_same_sink_answers_the_same_receipt(tmp_path: Path) -> None:
    sink = written(sink_at(tmp_path), run_of(), some(run_of(), 1))
    assert sink.commit(run_of(), outcome_of(run_of())) is sink.commit(run_of(), outcome_of(run_of()))


def test_nothing_is_there_before_the_commit_and_after_an_abort(tmp_path: Path, catalog: Catalog) -> None:
    sink = written(sink_at(tmp_path, staging_directory=tmp_path / "staging"), run_of(), some(run_of(), 1))
    assert catalog.list_namespaces() == []
    assert list((tmp_path / "staging").iterdir())
    sink.abort()
    sink.abort()
    assert files(tmp_path) == {Path("catalog.db")}


def test_a_revoked_grant_disappears_in_merge_mode(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 1, 3), "merge")
    deliver(tmp_path, run_of(2), some(run_of(2), 1, 2), "merge")
    assert names(tmp_path, "table_grants", "grantee") == [("r2", "grantee_0"), ("r2", "grantee_1")]


def test_records_that_a_run_did_not_look_for_stay_and_those_it_brings_are_there_once(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 3), "merge")
    later = run_of(2)
    unread = Coverage(Selection(), frozenset({("database_0",), ("database_1",)}))
    deliver(tmp_path, later, [("databases", records("databases", 1, run=later, first=1))], "merge", unread)
    assert names(tmp_path) == [("r1", "database_0"), ("r2", "database_1")]


@pytest.mark.slow
def test_other_clusters_stay_as_they_are_whatever_their_names(tmp_path: Path) -> None:
    clusters = ["c1' OR '1'='1", "\\", "a\nb"]
    for number in (1, 2):
        for cluster in clusters:
            run = run_of(number, cluster=cluster, streams=["databases"])
            deliver(tmp_path, run, some(run, 1), "merge")
    assert sorted(row["cluster"] for row in rows(tmp_path, "databases")) == sorted(clusters)


def test_a_run_older_than_what_the_table_holds_is_refused_in_merge_mode(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(2), some(run_of(2), 2), "merge")
    with pytest.raises(SinkRefusedError, match=r'"databases" holds records .* later run, which run "r1" would undo'):
        deliver(tmp_path, run_of(1), some(run_of(1), 1), "merge")
    assert names(tmp_path) == [("r2", "database_0"), ("r2", "database_1")]


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_nullable_field_that_a_stream_gains_becomes_a_column(tmp_path: Path, mode: str) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 2), mode)
    added = {"databases": pa.field("added", pa.list_(pa.string()))}
    later = sample_run("r9", streams=["databases"], added=added, extracted_at=run_of(9).extracted_at)
    only_shop = Coverage(Selection(include=("database_1",)))
    deliver(tmp_path, later, [("databases", records("databases", run=later, first=1, added=["x"]))], mode, only_shop)
    found = {
        (row["run_id"], row["database_name"]): row.get("added")
        for row in table_of(tmp_path).scan().to_arrow().to_pylist()
    }
    assert found[("r9", "database_1")] == ["x"]
    assert found[("r1", "database_0")] is None
    assert len(found) == (2 if mode == "merge" else 3)


def test_a_column_of_the_users_own_stays_with_its_values(tmp_path: Path, catalog: Catalog) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 2), "merge")
    table = catalog.load_table("lake.crdb.databases")
    with table.update_schema() as update:
        update.add_column("owner", StringType())
    marked = table.scan().to_arrow().drop_columns(["owner"]).append_column("owner", pa.array(["team a", "team b"]))
    table.overwrite(marked)
    nothing_known = Coverage(Selection(), known=False)
    deliver(tmp_path, run_of(2), [("databases", records("databases", run=run_of(2)))], "merge", nothing_known)
    found = table_of(tmp_path).scan().to_arrow().to_pylist()
    assert {(row["run_id"], row["owner"]) for row in found} == {("r2", None), ("r1", "team b")}


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (pa.field("size_bytes", pa.string()), 'column "size_bytes" has the type string and not int64'),
        (pa.field("mine", pa.string(), nullable=False), 'column "mine" takes no nulls'),
        (None, 'column "record_id" is missing'),
    ],
)
def test_a_table_of_another_shape_is_refused_before_the_run(
    tmp_path: Path, catalog: Catalog, field: pa.Field | None, complaint: str
) -> None:
    schema = run_of().streams["databases"]
    wrong = [each for each in schema if each.name != (field.name if field else "record_id")]
    catalog.create_namespace("lake.crdb")
    catalog.create_table("lake.crdb.databases", pa.schema([*wrong, *([field] if field else [])]))
    with pytest.raises(SinkRefusedError, match=f'table "databases": {complaint}.*rename the table'):
        sink_at(tmp_path).preflight(run_of())


def test_a_table_changed_by_hand_during_the_run_is_refused_at_commit(tmp_path: Path, catalog: Catalog) -> None:
    sink = written(sink_at(tmp_path), run_of(), some(run_of(), 1))
    catalog.create_namespace("lake.crdb")
    catalog.create_table("lake.crdb.databases", pa.schema([pa.field("size_bytes", pa.string())]))
    with pytest.raises(SinkRefusedError, match="size_bytes"):
        sink.commit(run_of(), outcome_of(run_of()))
    sink.abort()


def test_a_commit_of_another_process_between_looking_and_writing_does_not_double_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(tmp_path, run_of(1, streams=["databases"]), [])
    run = run_of(2, streams=["databases"])
    _meanwhile(monkeypatch, lambda: deliver(tmp_path, run, some(run, 1)))
    deliver(tmp_path, run, some(run, 1))
    assert names(tmp_path) == [("r2", "database_0")]


def test_a_present_state_that_others_changed_meanwhile_is_made_from_what_they_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, mine = (run_of(number, streams=["databases"]) for number in (1, 2, 3))
    deliver(tmp_path, first, some(first, 1), "merge")
    unread = Coverage(Selection(), frozenset({("database_5",)}))
    theirs = [("databases", records("databases", run=second, first=5))]
    _meanwhile(monkeypatch, lambda: deliver(tmp_path, second, theirs, "merge"))
    deliver(tmp_path, mine, some(mine, 1), "merge", unread)
    assert names(tmp_path) == [("r2", "database_5"), ("r3", "database_0")]


def test_an_older_run_that_lost_a_race_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = (run_of(number, streams=["databases"]) for number in (1, 2))
    deliver(tmp_path, run_of(0, streams=["databases"]), [], "merge")
    _meanwhile(monkeypatch, lambda: deliver(tmp_path, newer, some(newer, 1), "merge"))
    with pytest.raises(SinkRefusedError, match="would undo"):
        deliver(tmp_path, older, some(older, 2), "merge")
    assert names(tmp_path) == [("r2", "database_0")]


def _meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something once, when a table has been looked at and before it is written."""
    write = stream_table.StreamTable._write
    done = threading.Event()

    def late(self: stream_table.StreamTable, table: Table, change: Transaction, delivery: Delivery) -> None:
        if not done.is_set():
            done.set()
            do()
        write(self, table, change, delivery)

    monkeypatch.setattr(stream_table.StreamTable, "_write", late)


def test_a_table_that_others_write_all_the_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(tmp_path, run_of(1, streams=["databases"]), [])
    run = run_of(2, streams=["databases"])
    write, waits = stream_table.StreamTable._write, []

    def always_late(self: stream_table.StreamTable, table: Table, change: Transaction, delivery: Delivery) -> None:
        other = records("databases", run=run)
        table_of(tmp_path).append(pa.Table.from_batches([other]))
        write(self, table, change, delivery)

    monkeypatch.setattr(stream_table.StreamTable, "_write", always_late)
    monkeypatch.setattr(tables, "_ATTEMPTS", 3)
    monkeypatch.setattr(stream_table.time, "sleep", waits.append)
    with pytest.raises(SinkError, match="others commit to it all the time"):
        deliver(tmp_path, run, some(run, 1), "merge")
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("changed", "error", "complaint"),
    [
        ({"warehouse": "file:///proc/lake"}, ConfigError, "warehouse /proc/lake cannot be written"),
        ({"warehouse": "/dev/null/lake"}, ConfigError, "warehouse /dev/null/lake cannot be made"),
        ({"uri": "sqlite:////dev/null/x.db"}, SinkError, "check its properties, and whether it is up"),
        ({"uri": "nonsense", "type": ""}, ConfigError, "cannot be opened.*check its properties"),
        ({"type": "rest", "uri": "http://127.0.0.1:1"}, SinkError, "127.0.0.1 cannot be reached.*try again later"),
    ],
)
def test_a_catalog_that_cannot_work_is_refused_before_the_run(
    tmp_path: Path, changed: dict[str, str], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        sink_at(tmp_path, properties=properties(tmp_path) | changed).preflight(run_of())


def test_a_catalog_of_an_unknown_name_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="catalog nobody cannot be opened: URI missing"):
        sink_at(tmp_path, catalog="nobody", properties={}).preflight(run_of())


def test_a_namespace_with_an_empty_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty level"):
        sink_at(tmp_path, namespace="lake..crdb").preflight(run_of())


def test_secrets_of_options_and_environment_are_told_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__PROD__TOKEN", "from the environment")
    options = {"s3.secret-access-key": "from an option", "s3.region": "us-east-1", "uri": "https://u:in-the-url@host/x"}
    sink = sink_at(Path("/"), properties=options)
    assert {"from an option", "from the environment", "in-the-url"} <= set(sink.secrets())
    assert "us-east-1" not in set(sink.secrets())
    assert not any(secret in f"{sink} {sink.shown_target()} {sink.config}" for secret in sink.secrets())


def test_the_plugin_is_loaded_without_pyiceberg() -> None:
    program = "import sys, crdbexport_iceberg; print('pyiceberg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_an_export_of_the_sandbox_arrives_whole_and_once(crdb_sandbox: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"url": (crdb_sandbox,), "cluster": "c1", "username": "demo", "run_id": "r1"}
    options = {"catalog": "test", "properties": properties(tmp_path)}
    sinks = {"lake": {"type": "iceberg", "target": "lake.crdb", **options}}
    config = ExportConfig(**settings, password=Secret("demo"), state_dir=tmp_path / "state", sinks=sinks)
    reports = [export(config) for _ in range(2)]
    assert [(each.status, each.exit_code) for each in reports] == [("complete", 0)] * 2
    counted = {name: len(rows(tmp_path, name)) for name in reports[0].streams}
    assert counted == {name: counts.extracted for name, counts in reports[0].streams.items()}
    assert counted["tables"] > 0


def test_the_plugin_registers_the_sink_type_iceberg() -> None:
    registered: dict[str, type] = {}
    crdbexport_iceberg.crdbexport_register_sinks(registered.__setitem__)
    assert registered == {"iceberg": IcebergSink}


def test_the_distribution_declares_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["crdbexport"].items()
    assert EntryPoint(name, module, "crdbexport").load() is crdbexport_iceberg


def test_a_run_that_was_read_anew_is_not_told_as_published(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 2))
    anew = replace(run_of(2), run_id="r1")

    with pytest.raises(SinkRefusedError, match="as it was read at another time; give another --run-id"):
        deliver(tmp_path, anew, some(anew, 3))

    assert len(rows(tmp_path, "databases")) == 2


def test_a_run_that_was_read_anew_replaces_the_state_that_it_left(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 2), "merge")
    anew = replace(run_of(2), run_id="r1")

    deliver(tmp_path, anew, some(anew, 3), "merge")

    assert {row["extracted_at"] for row in rows(tmp_path, "databases")} == {anew.extracted_at}
    assert len(rows(tmp_path, "databases")) == 3


def test_secrets_of_the_catalogs_file_are_known_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    (tmp_path / ".pyiceberg.yaml").write_text(
        "catalog:\n  test:\n    uri: postgresql://u:in-the-uri@host/db\n    s3.secret-access-key: in-the-file\n"
    )
    secrets = set(sink_at(tmp_path, properties={}).secrets())
    assert {"in-the-uri", "in-the-file"} <= secrets


def test_a_whole_reading_replaces_the_cluster_without_reading_its_rows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cluster in ("c1", "c2"):
        deliver(tmp_path, run_of(1, cluster=cluster), some(run_of(1, cluster=cluster), 3), "merge")
    monkeypatch.delattr(stream_table.StreamTable, "_staying")

    deliver(tmp_path, run_of(2), some(run_of(2), 2), "merge")

    found = sorted((row["cluster"], row["run_id"], row["database_name"]) for row in rows(tmp_path, "databases"))
    own = [("c1", "r2", f"database_{number}") for number in range(2)]
    assert found == own + [("c2", "r1", f"database_{number}") for number in range(3)]


def test_rows_of_the_system_database_outlive_a_run_that_leaves_it_out(tmp_path: Path) -> None:
    run = run_of(1, streams=["databases"])
    [(stream, data)] = some(run, 2)
    at = data.schema.get_field_index("database_name")
    named = data.set_column(at, data.schema.field(at), pa.array(["database_0", "system"]))
    deliver(tmp_path, run, [(stream, named)], "merge", Coverage(Selection(include=("*", "system"))))

    later = run_of(2, streams=["databases"])
    deliver(tmp_path, later, [("databases", records("databases", run=later, first=5))], "merge")

    assert names(tmp_path) == [("r1", "system"), ("r2", "database_5")]
