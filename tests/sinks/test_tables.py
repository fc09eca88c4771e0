from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crdbexport import Artifact, Batch, ConfigError, Coverage, Run, SinkConfig, SinkRefusedError
from crdbexport.selection import Selection
from crdbexport.sinks.present_state import PresentState
from crdbexport.sinks.table_schemas import fields_to_add, plain_type, shaped
from crdbexport.sinks.tables import Delivery, TablesSink, commit_id, refuse_unwritable, waits
from crdbexport.testing import records, sample_run
from crdbexport.testing.feed import outcome_of

RUN = sample_run(streams=["databases"])
SCHEMA = RUN.streams["databases"]


def staying(state: PresentState, held: pa.RecordBatch) -> list[str]:
    names: list[str] = state.staying(held).column("database_name").to_pylist()
    return names


def test_the_id_of_a_commit_tells_runs_and_clusters_apart() -> None:
    pairs = [("a", "b"), ("a", "c"), ("c", "b"), ("a\0", "b"), ("ab", ""), ("", "ab")]
    ids = {commit_id(sample_run(run_id, cluster=cluster)) for cluster, run_id in pairs}
    assert len(ids) == len(pairs)
    assert commit_id(sample_run("r1", cluster="c1")) == commit_id(sample_run("r1", cluster="c1", streams=["tables"]))


def test_rows_stay_where_the_run_did_not_look_unless_it_brings_them() -> None:
    unread = Coverage(Selection(), frozenset({("database_0",), ("database_1",)}))
    state = PresentState(unread, [records("databases", 1, run=RUN, first=1)])
    assert staying(state, records("databases", 3, run=RUN)) == ["database_0"]


def test_no_row_stays_where_the_run_looked_everywhere() -> None:
    assert staying(PresentState(Coverage(Selection()), []), records("databases", 3, run=RUN)) == []


@pytest.mark.parametrize("coverage", [None, Coverage(Selection(), known=False)])
def test_every_other_row_stays_where_nothing_is_known(coverage: Coverage | None) -> None:
    state = PresentState(coverage, [records("databases", 1, run=RUN, first=1)])
    assert staying(state, records("databases", 3, run=RUN)) == ["database_0", "database_2"]


@pytest.mark.parametrize(
    ("coverage", "keeps"),
    [
        (Coverage(Selection()), False),
        (Coverage(Selection(), frozenset({("another",)})), False),
        (Coverage(Selection(), frozenset({("another", "public", "table_0")})), False),
        (Coverage(Selection(include=("database_*",))), False),
        (Coverage(Selection(), frozenset({("database_1",)})), True),
        (Coverage(Selection(), frozenset({("database_1", "public", "table_1")})), True),
        (Coverage(Selection(exclude=("database_2",))), True),
        (Coverage(Selection(), known=False), True),
        (None, True),
    ],
)
def test_a_run_replaces_all_where_it_looked_wherever_the_table_has_rows(coverage: Coverage | None, keeps: bool) -> None:
    run = sample_run(streams=["tables"])
    held = [
        pa.record_batch({"database_name": [f"database_{n}"], "schema_name": ["public"], "table_name": [f"table_{n}"]})
        for n in range(3)
    ]
    state = PresentState(coverage, [])
    deciding = state.deciding(run.streams["tables"])
    assert state.may_keep(batch.select(deciding.names) for batch in held) is keeps
    assert state.may_keep([]) is False


def test_rows_of_the_system_database_may_stay_after_a_run_over_all_others() -> None:
    held = [pa.record_batch({"database_name": ["app", "system"]})]
    assert PresentState(Coverage(Selection()), []).may_keep(held)
    assert not PresentState(Coverage(Selection(include=("*", "system"))), []).may_keep(held)


def test_only_what_was_not_read_by_table_needs_the_names_of_tables() -> None:
    schema = sample_run(streams=["tables"]).streams["tables"]
    by_table = Coverage(Selection(), frozenset({("a", "public", "b")}))
    assert PresentState(Coverage(Selection()), []).deciding(schema).names == ["database_name"]
    assert PresentState(by_table, []).deciding(schema).names == ["database_name", "schema_name", "table_name"]
    assert PresentState(by_table, []).deciding(SCHEMA).names == ["database_name"]


def test_what_the_run_brings_is_not_looked_at_when_nothing_stays() -> None:
    def brought() -> Iterator[pa.RecordBatch]:
        raise AssertionError("was read")
        yield

    assert not PresentState(Coverage(Selection()), brought()).may_keep([records("databases", 3, run=RUN)])


def test_a_table_lacks_what_the_stream_has_gained() -> None:
    held = pa.schema([field for field in SCHEMA if field.name != "store_ids"])
    assert [field.name for field in fields_to_add("databases", SCHEMA, held)] == ["store_ids"]


@pytest.mark.parametrize(
    ("held", "complaint"),
    [
        (SCHEMA.set(5, pa.field("database_name", pa.int64())), '"database_name" has the type int64 and not string'),
        (SCHEMA.remove(SCHEMA.get_field_index("record_id")), '"record_id" is missing'),
        (SCHEMA.append(pa.field("mine", pa.string(), nullable=False)), '"mine" takes no nulls'),
    ],
)
def test_a_table_that_cannot_take_the_stream_is_refused_by_column(held: pa.Schema, complaint: str) -> None:
    with pytest.raises(SinkRefusedError, match=f'table "databases": column {complaint}.*rename the table'):
        fields_to_add("databases", SCHEMA, held)


@pytest.mark.parametrize(
    ("held", "declared"),
    [
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.large_list(pa.large_string()), pa.list_(pa.string())),
        (pa.timestamp("us", "+00:00"), pa.timestamp("us", "UTC")),
    ],
)
def test_layouts_of_a_type_are_one_type(held: pa.DataType, declared: pa.DataType) -> None:
    assert plain_type(held) == declared


@pytest.mark.parametrize("other", [pa.timestamp("us"), pa.timestamp("us", "CET"), pa.int32(), pa.binary()])
def test_other_types_stay_other_types(other: pa.DataType) -> None:
    assert plain_type(other) == other


def test_a_batch_takes_the_columns_of_a_schema_with_null_for_what_it_lacks() -> None:
    batch = records("databases", 2, run=RUN)
    wanted = pa.schema([pa.field("mine", pa.int64()), SCHEMA.field("database_name")])
    assert shaped(batch, wanted).to_pydict() == {"mine": [None, None], "database_name": ["database_0", "database_1"]}


def test_a_directory_in_which_nothing_can_be_written_is_refused_and_another_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, complaint in ((Path("/proc/lake"), "cannot be written"), (tmp_path / "file" / "lake", "not a directory")):
        with pytest.raises(ConfigError, match=f"root {path}.*{complaint}"):
            refuse_unwritable(path, "root")
    refuse_unwritable(tmp_path / "new" / "lake", "root")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_waits_grow_and_end() -> None:
    told = list(waits())
    assert 0 < told[0] < told[4] < told[-1] <= 5
    assert sum(told) < 60


class NotedTable:
    """Notes what it is asked."""

    def __init__(self, stream: str, asked: list[Any]) -> None:
        self.stream, self.asked = stream, asked

    def check(self) -> None:
        self.asked.append(("check", self.stream))

    def publish(self, delivery: Delivery) -> Artifact:
        rows = sum(batch.num_rows for batch in delivery.batches(self.stream))
        self.asked.append(("publish", self.stream, rows, delivery.replaces))
        return Artifact(self.stream, self.stream, rows, 100)


class NotedSink(TablesSink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        staging_directory: Path
        mode: str = "merge"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.asked: list[Any] = []

    def place(self) -> str:
        return "here"

    @contextmanager
    def tables(self, run: Run) -> Iterator[Iterator[NotedTable]]:
        yield (NotedTable(stream, self.asked) for stream in run.streams)


def test_a_sink_of_tables_looks_at_each_and_publishes_each_once(tmp_path: Path) -> None:
    sink = NotedSink(NotedSink.Config(staging_directory=tmp_path))
    sink.preflight(RUN)
    sink.open(RUN)
    data = records("databases", 3, run=RUN)
    sink.write(Batch("databases", 0, data))
    outcome = outcome_of(RUN, [("databases", data)])

    receipts = [sink.commit(RUN, outcome) for _ in range(2)]

    assert sink.asked == [("check", "databases"), ("publish", "databases", 3, True)]
    assert receipts[0] == receipts[1]
    assert receipts[0].size_bytes == 100
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_sink_of_tables_that_gives_up_publishes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    sink = NotedSink(NotedSink.Config(staging_directory=tmp_path))
    sink.abort()
    sink.open(RUN)
    sink.write(Batch("databases", 0, records("databases", 3, run=RUN)))
    assert list(tmp_path.iterdir())
    sink.abort()
    assert sink.asked == []
    assert list(tmp_path.iterdir()) == []
