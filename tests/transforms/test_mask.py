from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport import Batch, ConfigError
from crdbexport.records import ENVELOPE, STREAMS, Field
from crdbexport.transforms.mask import Mask

KEY = "correct horse battery staple"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
UNMASKABLE = ("details", "ordinal_position", "is_unique", "is_nullable")
OWN_FIELDS = {field.name: field for stream in STREAMS.values() for field in stream.own_fields}
MASKABLE = sorted(set(OWN_FIELDS) - set(UNMASKABLE))

names = st.sampled_from(["public", "users", "Users", "", "a\u0308", "ä", "名前"]) | st.text("aAé名\0", max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": names,
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(1, 2**31 - 1),
    "bool": st.booleans(),
    "timestamp[us, tz=UTC]": st.just(NOW),
    "list<int64>": st.lists(st.integers(1, 9), max_size=3),
    "list<string>": st.lists(names, max_size=3),
}


def value_of(field: Field) -> st.SearchStrategy[Any]:
    return st.none() | VALUES[field.type] if field.nullable else VALUES[field.type]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    stream = STREAMS[draw(st.sampled_from(sorted(STREAMS)))]
    row = st.fixed_dictionaries({field.name: value_of(field) for field in stream.fields})
    rows = draw(st.lists(row, max_size=6))
    return Batch(stream.name, 0, pa.RecordBatch.from_pylist(rows, schema=stream.schema))


def batch_of(stream_name: str, **own: Any) -> Batch:
    schema = STREAMS[stream_name].schema
    envelope = {
        "cluster": "prod",
        "run_id": "r",
        "logical_time": NOW,
        "extracted_at": NOW,
        "record_id": "0" * 32,
    }
    rest = {"details": "fetched"} if "details" in schema.names else {}
    return Batch(stream_name, 0, pa.RecordBatch.from_pylist([envelope | rest | own], schema=schema))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", KEY)


@pytest.fixture(scope="module")
def mask_all() -> Mask:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CRDBEXPORT_MASK_KEY", KEY)
        return Mask(Mask.Config(fields=tuple(MASKABLE)))


def masking(*fields: str, **options: Any) -> Mask:
    return Mask(Mask.Config(fields=fields, **options))


def token(name: str) -> str:
    keyed = blake2b(name.encode(), key=KEY.encode(), digest_size=16, person=b"crdbexport.mask")
    return keyed.hexdigest()


def expected(field: Field, value: Any) -> Any:
    if field.name not in MASKABLE:
        return value
    if value is None or field.type not in {"string", "list<string>"}:
        return None
    return token(value) if field.type == "string" else [token(each) for each in value]


@pytest.mark.slow
@given(batch=batches())
def test_strings_become_their_tokens_and_everything_else_null(batch: Batch, mask_all: Mask) -> None:
    fields = STREAMS[batch.stream].fields
    wanted = [{field.name: expected(field, row[field.name]) for field in fields} for row in batch.rows()]
    assert mask_all.apply(batch).to_pylist() == wanted


@pytest.mark.slow
@given(batch=batches())
def test_schema_row_count_envelope_and_unnamed_fields_stay(batch: Batch) -> None:
    masked = masking("database_name", "size_bytes", "column_names").apply(batch)
    assert masked.schema.equals(batch.data.schema, check_metadata=True)
    assert masked.num_rows == batch.data.num_rows
    for field in {field.name for field in ENVELOPE} | {"grantee", "data_type", "details"}:
        if field in masked.schema.names:
            assert masked.column(field).equals(batch.data.column(field))


@pytest.mark.slow
@given(batch=batches())
def test_no_key_becomes_null(batch: Batch, mask_all: Mask) -> None:
    masked = mask_all.apply(batch)
    for field in masked.schema:
        assert field.nullable or masked.column(field.name).null_count == 0


@pytest.mark.slow
@given(st.lists(st.tuples(names, names), min_size=1))
def test_masked_keys_are_equal_exactly_where_the_names_are(mask_all: Mask, pairs: list[tuple[str, str]]) -> None:
    for left, right in pairs:
        one = mask_all.apply(batch_of("databases", database_name=left)).column("database_name")[0].as_py()
        other = mask_all.apply(batch_of("databases", database_name=right)).column("database_name")[0].as_py()
        assert (one == other) == (left == right)
        assert one != left


def test_a_name_has_one_token_in_every_stream_and_field() -> None:
    mask = masking("table_name", "column_name", "column_names")
    where = {"database_name": "bank", "schema_name": "public", "table_name": "email"}
    column = batch_of(
        "columns", **where, column_name="email", ordinal_position=1, data_type="STRING", is_nullable=False
    )
    index = batch_of("indexes", **where, index_name="pk", is_unique=True, column_names=["email", "id"])
    [masked_column], [masked_index] = mask.apply(column).to_pylist(), mask.apply(index).to_pylist()
    assert masked_column["table_name"] == masked_index["table_name"] == masked_column["column_name"]
    assert masked_index["column_names"] == [masked_column["column_name"], token("id")]


def test_the_token_is_the_documented_one() -> None:
    masked = masking("database_name").apply(batch_of("databases", database_name="bank"))
    assert masked.column("database_name").to_pylist() == ["851691a1dc90a99c222c9c154435a4d6"]


def test_another_key_gives_other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = batch_of("databases", database_name="bank")
    monkeypatch.setenv("OTHER_KEY", "another sixteen bytes")
    first, second = (
        masking("database_name").apply(bank),
        masking("database_name", key_env="OTHER_KEY").apply(bank),
    )
    assert first.column("database_name") != second.column("database_name")


def test_the_key_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = masking("database_name")
    monkeypatch.delenv("CRDBEXPORT_MASK_KEY")
    masked = mask.apply(batch_of("databases", database_name="bank"))
    assert masked.column("database_name").to_pylist() == [token("bank")]


def test_a_slice_of_a_batch_is_masked_by_its_own_rows() -> None:
    two = pa.Table.from_batches([batch_of("databases", database_name=name).data for name in ("a", "b")])
    sliced = Batch("databases", 0, two.combine_chunks().to_batches()[0].slice(1))
    assert masking("database_name").apply(sliced).column("database_name").to_pylist() == [token("b")]


@pytest.mark.parametrize("key", ["", "fifteen bytes!!", "x" * 65])
def test_a_key_of_the_wrong_length_is_refused_with_the_command_that_makes_one(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", key)
    with pytest.raises(ConfigError, match=r"CRDBEXPORT_MASK_KEY.*openssl rand -hex 32") as caught:
        masking("database_name")
    assert not key or key not in str(caught.value)


def test_a_missing_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRDBEXPORT_MASK_KEY")
    with pytest.raises(ConfigError, match="CRDBEXPORT_MASK_KEY is not set"):
        masking("database_name")


@pytest.mark.parametrize("key", ["s" * 16, "s" * 64])
def test_the_shortest_and_the_longest_key_work(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", key)
    assert masking("database_name").apply(batch_of("databases", database_name="bank")).num_rows == 1


def test_nothing_that_prints_a_mask_prints_the_key() -> None:
    mask = masking("database_name")
    assert KEY not in f"{mask!r} {mask.config!r} {vars(mask)!r}"


@pytest.mark.parametrize("name", [*UNMASKABLE, *(field.name for field in ENVELOPE)])
def test_a_field_that_can_neither_be_hashed_nor_null_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f'"{name}"'):
        masking("database_name", name)


@pytest.mark.parametrize("name", MASKABLE)
def test_every_other_field_can_be_masked(name: str) -> None:
    assert masking(name).apply(batch_of("databases", database_name="bank")).num_rows == 1


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'"grantees".*did you mean "grantee"'):
        masking("grantees")


def test_a_mask_of_no_fields_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one field"):
        masking()
