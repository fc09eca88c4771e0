from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import crdbexport_deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crdbexport_deltalake import DeltaLakeSink, stream_table
from crdbexport_deltalake.place import cause_of
from deltalake import DeltaTable, write_deltalake

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


def sink_at(root: Path | str, mode: str = "append", **options: Any) -> DeltaLakeSink:
    return DeltaLakeSink(convert({"root": str(root), "mode": mode, **options}, DeltaLakeSink.Config, where="test"))


def written(sink: DeltaLakeSink, run: Run, batches: Batches) -> DeltaLakeSink:
    sink.preflight(run)
    sink.open(run)
    for sequence, (stream, data) in enumerate(batches):
        sink.write(Batch(stream, sequence, data))
    return sink


def outcome_of(run: Run, coverage: Coverage = EVERYTHING) -> Outcome:
    return Outcome(True, (), dict.fromkeys(run.streams, coverage), {})


def deliver(
    root: Path | str, run: Run, batches: Batches, mode: str = "append", coverage: Coverage = EVERYTHING
) -> Receipt:
    sink = written(sink_at(root, mode), run, batches)
    try:
        return sink.commit(run, outcome_of(run, coverage))
    finally:
        sink.abort()


def rows(root: Path, stream: str) -> list[dict[str, Any]]:
    """The stream's rows, read from the files that the log names."""
    table = DeltaTable(root / stream)
    return [row for path in table.file_uris() for row in pq.read_table(path).to_pylist()]


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


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_run_is_one_commit_a_stream_and_its_repeat_none(tmp_path: Path, mode: str) -> None:
    first = deliver(tmp_path, run_of(), some(run_of(), 2, 3), mode)
    before = files(tmp_path)
    assert {each.operation for each in history(tmp_path)} == {"CREATE TABLE", "WRITE"}
    again = deliver(tmp_path, run_of(), some(run_of(), 2, 3), mode)
    assert files(tmp_path) == before
    assert [(each.stream, each.rows) for each in again.artifacts] == [("databases", 2), ("table_grants", 3)]
    assert [(each.stream, each.rows) for each in first.artifacts] == [("databases", 2), ("table_grants", 3)]
    sizes = [each.stat().st_size for each in tmp_path.rglob("*.parquet")]
    assert first.size_bytes == sum(sizes) > 0


class Operation:
    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.operation: str = entry["operation"]


def history(root: Path, stream: str = "databases") -> list[Operation]:
    entries = DeltaTable(root / stream).history()
    assert len(entries) == 2
    return [Operation(each) for each in entries]


def test_the_application_transaction_is_written_in_the_commit_of_the_records(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(), some(run_of(), 1))
    log = (tmp_path / "databases" / "_delta_log" / f"{1:020}.json").read_text()
    assert f'"appId":"{commit_id(run_of())}"' in log
    assert '"add"' in log


def test_a_stream_without_records_has_its_table(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(), [])
    table = DeltaTable(tmp_path / "table_grants")
    assert pa.schema(table.schema().to_arrow()).names == run_of().streams["table_grants"].names
    assert table.transaction_version(commit_id(run_of())) == tables.read_at(run_of())


def test_a_second_commit_of_the_same_sink_answers_the_same_receipt(tmp_path: Path) -> None:
    sink = written(sink_at(tmp_path), run_of(), some(run_of(), 1))
    assert sink.commit(run_of(), outcome_of(run_of())) is sink.commit(run_of(), outcome_of(run_of()))


def test_nothing_is_there_before_the_commit_and_after_an_abort(tmp_path: Path) -> None:
    sink = written(sink_at(tmp_path / "lake", staging_directory=tmp_path / "staging"), run_of(), some(run_of(), 1))
    assert not (tmp_path / "lake").exists()
    assert list((tmp_path / "staging").iterdir())
    sink.abort()
    sink.abort()
    assert not (tmp_path / "lake").exists()
    assert not list((tmp_path / "staging").iterdir())


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
    clusters = ["c1", "c1' OR '1'='1", "\\", "a\nb", "\U0001f600" * 20 + "a", "\U0001f600" * 20 + "b"]
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
    found = {(row["run_id"], row["database_name"]): row.get("added") for row in rows_by_delta(tmp_path)}
    assert found[("r9", "database_1")] == ["x"]
    assert found[("r1", "database_0")] is None
    assert len(found) == (2 if mode == "merge" else 3)


def rows_by_delta(root: Path) -> list[dict[str, Any]]:
    return pa.table(DeltaTable(root / "databases").scan()).to_pylist()


def test_a_column_of_the_users_own_stays_with_its_values(tmp_path: Path) -> None:
    deliver(tmp_path, run_of(1), some(run_of(1), 2), "merge")
    table = DeltaTable(tmp_path / "databases")
    marked = pa.table(table.scan()).append_column("owner", pa.array(["team a", "team b"]))
    write_deltalake(table, marked, mode="overwrite", schema_mode="merge")
    nothing_known = Coverage(Selection(), known=False)
    deliver(tmp_path, run_of(2), [("databases", records("databases", run=run_of(2)))], "merge", nothing_known)
    assert {(row["run_id"], row["owner"]) for row in rows_by_delta(tmp_path)} == {("r2", None), ("r1", "team b")}


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (pa.field("size_bytes", pa.string()), 'column "size_bytes" has the type string and not int64'),
        (pa.field("mine", pa.string(), nullable=False), 'column "mine" takes no nulls'),
        (None, 'column "record_id" is missing'),
    ],
)
def test_a_table_of_another_shape_is_refused_before_the_run(
    tmp_path: Path, field: pa.Field | None, complaint: str
) -> None:
    schema = run_of().streams["databases"]
    wrong = [each for each in schema if each.name != (field.name if field else "record_id")]
    DeltaTable.create(tmp_path / "databases", pa.schema([*wrong, *([field] if field else [])]))
    with pytest.raises(SinkRefusedError, match=f'table "databases": {complaint}.*rename the table'):
        sink_at(tmp_path).preflight(run_of())


def test_a_table_changed_by_hand_during_the_run_is_refused_at_commit(tmp_path: Path) -> None:
    sink = written(sink_at(tmp_path), run_of(), some(run_of(), 1))
    DeltaTable.create(tmp_path / "databases", pa.schema([pa.field("size_bytes", pa.string())]))
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

    def late(self: stream_table.StreamTable, table: DeltaTable, delivery: Delivery) -> None:
        if not done.is_set():
            done.set()
            do()
        write(self, table, delivery)

    monkeypatch.setattr(stream_table.StreamTable, "_write", late)


def test_a_table_that_others_write_all_the_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(tmp_path, run_of(1, streams=["databases"]), [])
    run = run_of(2, streams=["databases"])
    write, waits = stream_table.StreamTable._write, []

    def always_late(self: stream_table.StreamTable, table: DeltaTable, delivery: Delivery) -> None:
        write_deltalake(tmp_path / "databases", records("databases", run=run), mode="append")
        write(self, table, delivery)

    monkeypatch.setattr(stream_table.StreamTable, "_write", always_late)
    monkeypatch.setattr(tables, "_ATTEMPTS", 3)
    monkeypatch.setattr(stream_table.time, "sleep", waits.append)
    with pytest.raises(SinkError, match="others commit to the table all the time"):
        deliver(tmp_path, run, some(run, 1), "merge")
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("root", "complaint"),
    [("/proc/lake", "cannot be written"), ("/dev/null/lake", "not a directory"), ("  ", "root is empty")],
)
def test_a_place_that_takes_no_files_is_refused_before_the_run(root: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sink_at(root).preflight(run_of())


def test_a_uri_of_no_known_kind_is_refused_before_the_run() -> None:
    with pytest.raises(SinkRefusedError, match="no place that delta-rs knows"):
        sink_at("nowhere://bucket/lake").preflight(run_of())


def test_a_cause_is_told_in_a_line_without_colours_and_queries() -> None:
    error = OSError(
        "Kernel error\n \x1b[31m↳\x1b[0m GET http://h/b?prefix=x&sig=s\n  \x1b[31m↳\x1b[0m at http://h/b?sig=s: no"
    )
    assert cause_of(error) == "Kernel error: at http://h/b no"


def test_secrets_of_options_and_environment_are_told_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "from the environment")
    options = {"aws_secret_access_key": "from an option", "aws_region": "us-east-1"}
    sink = sink_at("s3://user:in-the-url@bucket/lake", storage_options=options)
    assert {"from an option", "from the environment", "in-the-url"} <= set(sink.secrets())
    assert "us-east-1" not in set(sink.secrets())
    assert isinstance(sink.config.storage_options["aws_region"], Secret)
    assert not any(secret in f"{sink} {sink.shown_target()} {sink.config.storage_options}" for secret in sink.secrets())


def test_the_plugin_is_loaded_without_delta_rs() -> None:
    program = "import sys, crdbexport_deltalake; print('deltalake' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_an_export_of_the_sandbox_arrives_whole_and_once(crdb_sandbox: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"url": (crdb_sandbox,), "cluster": "c1", "username": "demo", "run_id": "r1"}
    sinks = {"lake": {"type": "deltalake", "target": str(tmp_path / "lake")}}
    config = ExportConfig(**settings, password=Secret("demo"), state_dir=tmp_path / "state", sinks=sinks)
    reports = [export(config) for _ in range(2)]
    assert [(each.status, each.exit_code) for each in reports] == [("complete", 0)] * 2
    counted = {name: len(rows(tmp_path / "lake", name)) for name in reports[0].streams}
    assert counted == {name: counts.extracted for name, counts in reports[0].streams.items()}
    assert counted["tables"] > 0


def test_the_plugin_registers_the_sink_type_deltalake() -> None:
    registered: dict[str, type] = {}
    crdbexport_deltalake.crdbexport_register_sinks(registered.__setitem__)
    assert registered == {"deltalake": DeltaLakeSink}


def test_the_distribution_declares_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["crdbexport"].items()
    assert EntryPoint(name, module, "crdbexport").load() is crdbexport_deltalake


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


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            "Kernel error -> Generic S3 error: <Error><Code>NoSuchBucket</Code><Id>h</Id></Error>",
            "NoSuchBucket",
        ),
        ("Generic S3 error: <?xml version='1.0'?><Error><Message>a row</Message></Error>", "..."),
    ],
)
def test_of_the_body_of_an_answer_its_code_alone_is_told(told: str, shown: str) -> None:
    assert cause_of(OSError(told)) == f"Generic S3 error: {shown}"


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


def test_a_column_of_the_users_own_stays_after_a_whole_reading_and_its_values_for_other_clusters(
    tmp_path: Path,
) -> None:
    for cluster in ("c1", "c2"):
        run = run_of(1, cluster=cluster, streams=["databases"])
        deliver(tmp_path, run, some(run, 1), "merge")
    table = DeltaTable(tmp_path / "databases")
    marked = pa.table(table.scan()).append_column("owner", pa.array(["team a", "team a"]))
    write_deltalake(table, marked, mode="overwrite", schema_mode="merge")
    deliver(tmp_path, run_of(2), some(run_of(2), 1), "merge")
    assert {(row["cluster"], row["owner"]) for row in rows_by_delta(tmp_path)} == {("c1", None), ("c2", "team a")}
