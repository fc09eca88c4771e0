from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crdbexport import Batch, ConfigError, Gap, RunReport, Transform, TransformConfig
from crdbexport.errors import PluginError
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.intake import Intake
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.transforming import NamedTransform, TransformChain
from crdbexport.records import STREAMS, record_id

Change = Callable[[pa.RecordBatch], Any]


class Changing(Transform):
    def __init__(self, change: Change) -> None:
        super().__init__(TransformConfig())
        self.change = change

    def apply(self, batch: Batch) -> Any:
        return self.change(batch.data)


def chain_of(*transforms: Change | Transform) -> TransformChain:
    """A chain of transforms named t0, t1 ..., of the plugin `mine 1.0`."""
    made = [each if isinstance(each, Transform) else Changing(each) for each in transforms]
    return TransformChain([NamedTransform(f"t{number}", "mine 1.0", each) for number, each in enumerate(made)])


def set_to(name: str, values: Callable[[list[Any]], list[Any]]) -> Change:
    def change(data: pa.RecordBatch) -> pa.RecordBatch:
        index = data.schema.get_field_index(name)
        field = data.schema.field(index)
        return data.set_column(index, field, pa.array(values(data.column(name).to_pylist()), type=field.type))

    return change


def without(grantee: str) -> Change:
    return lambda data: data.filter(pc.not_equal(data.column("grantee"), grantee))


def taking(*places: int) -> Change:
    return lambda data: data.take(pa.array(places, type=pa.int64()))


def raising(error: BaseException) -> Change:
    def change(data: pa.RecordBatch) -> Any:
        raise error

    return change


class Renaming(Transform):
    """Changes every grantee, and says so."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__(TransformConfig())
        self.change = change

    def apply(self, batch: Batch) -> Any:
        return set_to("grantee", lambda names: [self.change(name) for name in names])(batch.data)

    def rename(self, field: str, name: str) -> str:
        return self.change(name) if field == "grantee" else name


def upper() -> Renaming:
    return Renaming(str.upper)


def applied(chain: TransformChain, data: pa.RecordBatch) -> pa.RecordBatch:
    return chain.apply("database_grants", "c1", data, 0)


def test_without_transforms_a_batch_passes_as_it_is(grants: Any) -> None:
    data = grants("ann", "bob")

    assert applied(chain_of(), data) is data


def test_transforms_apply_in_their_order(grants: Any) -> None:
    suffix = Renaming(lambda name: f"{name}_x")

    assert applied(chain_of(suffix, upper()), grants("ann")).column("grantee").to_pylist() == ["ANN_X"]
    assert applied(chain_of(upper(), suffix), grants("ann")).column("grantee").to_pylist() == ["ANN_x"]
    assert chain_of(suffix, upper()).rename("grantee", "ann") == "ANN_X"
    assert chain_of(upper(), suffix).rename("grantee", "ann") == "ANN_x"


def test_a_transform_sees_stream_and_sequence(grants: Any) -> None:
    seen: list[Batch] = []

    class Looking(Transform):
        def apply(self, batch: Batch) -> pa.RecordBatch:
            seen.append(batch)
            return batch.data

    chain = TransformChain([NamedTransform("look", "mine 1.0", Looking(TransformConfig()))])
    chain.apply("database_grants", "c1", grants("ann"), 7)

    assert [(batch.stream, batch.sequence) for batch in seen] == [("database_grants", 7)]


@pytest.mark.parametrize("left", [(), (0,), (1,), (0, 2), (0, 1, 2)], ids=str)
def test_rows_may_go_and_the_others_keep_their_ids(grants: Any, left: tuple[int, ...]) -> None:
    data = grants("ann", "bob", "cid")
    chain = chain_of(taking(*left))

    assert applied(chain, data).equals(data.take(pa.array(left, type=pa.int64())))
    assert not chain.renames


SCHEMA = "it changed the schema"
ROWS = "it added, repeated or reordered rows, or changed record_id"
OUTSIDE = "it changed the envelope"
RENAMED = "it changed the key grantee, and does not define rename(field, name)"
BROKEN: dict[str, tuple[Change, str]] = {
    "None": (lambda data: None, "it answered NoneType, not a pyarrow.RecordBatch"),
    "table": (lambda data: pa.Table.from_batches([data]), "it answered Table, not a pyarrow.RecordBatch"),
    "column gone": (lambda data: data.drop_columns(["grantee"]), SCHEMA),
    "column more": (lambda data: data.append_column("more", pa.array([1, 2, 3])), SCHEMA),
    "columns reordered": (lambda data: data.select(data.schema.names[::-1]), SCHEMA),
    "retyped": (
        lambda data: data.set_column(6, "grantee", data.column("grantee").cast(pa.large_string())),
        SCHEMA,
    ),
    "nullable": (
        lambda data: data.set_column(6, pa.field("grantee", pa.string(), nullable=True), data.column("grantee")),
        SCHEMA,
    ),
    "row more": (taking(0, 1, 2, 2), ROWS),
    "row twice": (taking(0, 0, 1), ROWS),
    "reversed": (taking(2, 1, 0), ROWS),
    "swapped": (taking(2, 0), ROWS),
    "record id": (set_to("record_id", lambda ids: ["x", *ids[1:]]), ROWS),
    "key null": (
        set_to("grantee", lambda names: [None, *names[1:]]),
        "it put nulls into grantee, which has none",
    ),
    "envelope null": (
        set_to("cluster", lambda names: [None, *names[1:]]),
        "it put nulls into cluster, which has none",
    ),
    "key": (set_to("grantee", lambda names: ["other", *names[1:]]), RENAMED),
    "last key": (set_to("grantee", lambda names: [*names[:-1], "other"]), RENAMED),
    "cluster": (set_to("cluster", lambda names: ["other", *names[1:]]), OUTSIDE),
    "run id": (set_to("run_id", lambda ids: ["other"] * len(ids)), OUTSIDE),
    "time": (set_to("extracted_at", lambda times: [times[0].replace(year=1999), *times[1:]]), OUTSIDE),
}


@pytest.mark.parametrize(("change", "cause"), BROKEN.values(), ids=BROKEN)
def test_a_broken_contract_ends_the_run_with_the_names_of_transform_and_plugin(
    grants: Any, change: Change, cause: str
) -> None:
    chain = chain_of(lambda data: data, change)

    with pytest.raises(PluginError) as raised:
        applied(chain, grants("ann", "bob", "cid"))

    assert str(raised.value) == f"transform 't1' of mine 1.0 broke its contract on stream database_grants: {cause}"
    assert raised.value.plugin == "mine 1.0"
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no"),
        SystemExit("no"),
        StopIteration("no"),
        GeneratorExit("no"),
        KeyboardInterrupt("no"),
        asyncio.CancelledError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_transform_raises_is_its_own_failure(grants: Any, error: BaseException) -> None:
    with pytest.raises(PluginError) as raised:
        applied(chain_of(raising(error)), grants("ann"))

    name = type(error).__name__
    assert str(raised.value) == f"transform 't0' of mine 1.0 failed on stream database_grants: {name}: no"
    assert raised.value.plugin == "mine 1.0"


def test_an_error_that_tells_the_user_what_to_do_is_shown_as_it_stands(grants: Any) -> None:
    with pytest.raises(ConfigError, match=r"^mask: set the key$"):
        applied(chain_of(raising(ConfigError("mask: set the key"))), grants("ann"))


def test_a_changed_key_gives_a_new_record_id(grants: Any) -> None:
    chain = chain_of(without("bob"), upper())

    result = applied(chain, grants("ann", "bob", "cid"))

    assert chain.renames
    assert result.column("record_id").to_pylist() == [
        record_id("c1", "database_grants", ("bank", name, "CONNECT")) for name in ("ANN", "CID")
    ]


def test_a_transform_that_renames_otherwise_than_it_says_breaks_its_contract(grants: Any) -> None:
    class Lying(Renaming):
        def rename(self, field: str, name: str) -> str:
            return name.lower()

    with pytest.raises(PluginError, match="it changed the key grantee otherwise than its rename"):
        applied(chain_of(Lying(str.upper)), grants("ann"))


def test_a_gap_is_told_under_the_names_that_are_published() -> None:
    class Numbered(Renaming):
        def rename(self, field: str, name: str) -> str:
            return f"{field}:{name}"

    gap = Gap(database="bank", part="details", reason="forbidden", schema="public", table="t", http_status=403)
    chain = chain_of(Numbered(str.upper))

    assert chain.rename_gap(gap) == Gap(
        database="database_name:bank",
        part="details",
        reason="forbidden",
        schema="schema_name:public",
        table="table_name:t",
        http_status=403,
    )
    assert chain.rename_gap(Gap(database="bank", part="tables", reason="forbidden")).table is None
    assert chain_of(without("ann")).rename_gap(gap) == gap


def test_a_change_beside_the_key_keeps_the_record_ids(envelope: Envelope) -> None:
    batcher = Batcher(envelope)
    told = {"database_name": "bank", "schema_name": "public", "table_name": "t", "size_bytes": 5, "details": "fetched"}
    row = tuple(told.get(field.name) for field in STREAMS["tables"].own_fields)
    assert not list(batcher.add("tables", [row]))
    ((_, data),) = batcher.finish()
    chain = chain_of(set_to("size_bytes", lambda sizes: [None for _ in sizes]))

    result = chain.apply("tables", "c1", data, 0)

    assert result.column("size_bytes").to_pylist() == [None]
    assert result.column("record_id").equals(data.column("record_id"))
    assert not chain.renames


def test_only_removed_rows_count_as_filtered_and_an_empty_batch_is_not_spooled(
    envelope: Envelope, spool: Spool
) -> None:
    chain = chain_of(without("user1"), upper())
    intake = Intake(Batcher(envelope, batch_rows=2), chain, spool, ("database_grants", "tables"))

    intake.add("database_grants", [("bank", f"user{number % 2}", "CONNECT") for number in range(4)])
    intake.add("database_grants", [("bank", "user1", "CONNECT")])
    intake.finish()

    counts = intake.counts["database_grants"]
    assert (counts.extracted, counts.filtered, counts.batches) == (5, 3, 2)
    assert [(batch.sequence, batch.rows) for batch in spool.batches] == [(0, 1), (1, 1)]
    assert intake.counts["tables"].extracted == 0


def test_a_run_with_a_broken_transform_publishes_nothing_and_exits_2(
    export: Callable[..., RunReport], url: str, offering: Any, telling: Any
) -> None:
    class Empty(Transform):
        def apply(self, batch: Batch) -> Any:
            return None

    report = export(
        url,
        sinks={"mine": {"type": "telling"}},
        transforms=({"type": "empty"},),
        call=offering(telling=telling, transforms={"empty": Empty}),
    )

    assert (report.status, report.exit_code) == ("failed", 2)
    assert "transform 'empty' of mine" in (report.error or "")
    assert telling.told == ["preflight", ("abort", "PluginError")]
