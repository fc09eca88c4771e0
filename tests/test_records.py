"""The streams as data, and the identity of a record, checked against code that shares nothing with the package's."""

from __future__ import annotations

import json
import unicodedata
from hashlib import blake2b
from importlib import resources
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport.config import IncludeName
from crdbexport.records import ENVELOPE, ON_REQUEST, STREAMS, record_id, schemas

VECTORS: list[dict[str, Any]] = json.loads(
    resources.files("crdbexport").joinpath("record_id_vectors.json").read_text(encoding="utf-8")
)


def independent_json(cluster: str, stream: str, key: list[str]) -> str:
    return json.dumps([cluster, stream, *key], ensure_ascii=False, separators=(",", ":"))


def independent_id(cluster: str, stream: str, key: list[str]) -> str:
    return blake2b(independent_json(cluster, stream, key).encode("utf-8"), digest_size=16).hexdigest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ascii(vector["key"]))
def test_a_published_vector_holds_for_this_package_and_for_any_other_json_encoder(vector: dict[str, Any]) -> None:
    name = (vector["cluster"], vector["stream"], vector["key"])

    assert vector["json"] == independent_json(*name)
    assert vector["record_id"] == independent_id(*name)
    assert vector["record_id"] == record_id(*name)


def test_the_vectors_cover_what_encoders_disagree_about() -> None:
    text = "".join(part for vector in VECTORS for part in (vector["cluster"], *vector["key"]))
    keys = [tuple(vector["key"]) for vector in VECTORS]

    assert len(VECTORS) >= 12
    assert set('"\\/\b\f\n\r\t\x00\x1b\x7f\u2028\u2029<&') <= set(text)
    assert any(ord(each) > 0xFFFF for each in text)
    assert any("" in key for key in keys)
    assert {vector["stream"] for vector in VECTORS} == set(STREAMS)
    for vector in VECTORS:
        assert len(vector["key"]) == len(STREAMS[vector["stream"]].key)


def test_the_vectors_tell_names_apart_that_differ_only_in_normalisation() -> None:
    ids = {vector["key"][0]: vector["record_id"] for vector in VECTORS if vector["stream"] == "databases"}
    decomposed = [name for name in ids if not unicodedata.is_normalized("NFC", name)]

    assert decomposed
    for name in decomposed:
        assert ids[name] != ids[unicodedata.normalize("NFC", name)]


@given(st.text(), st.lists(st.text(), min_size=1, max_size=4))
def test_any_name_has_the_id_that_an_independent_encoder_gives_it(cluster: str, key: list[str]) -> None:
    assert record_id(cluster, "tables", key) == independent_id(cluster, "tables", key)


def test_where_one_name_ends_and_the_next_begins_is_part_of_the_id() -> None:
    ids = {
        record_id("c", "tables", ("a", "b", "c")),
        record_id("c", "tables", ("ab", "", "c")),
        record_id("c", "tables", ('a","b', "c", "")),
        record_id("ca", "tables", ("", "b", "c")),
        record_id("c", "columns", ("a", "b", "c")),
    }

    assert len(ids) == 5


@pytest.mark.parametrize("stream", STREAMS.values(), ids=lambda stream: stream.name)
def test_every_stream_starts_with_the_envelope_and_has_a_key_that_is_never_null(stream: Any) -> None:
    schema = stream.schema

    assert schema.names[:5] == ["cluster", "run_id", "logical_time", "extracted_at", "record_id"]
    assert not any(schema.field(each.name).nullable for each in ENVELOPE)
    assert schema.names[5 : 5 + len(stream.key)] == list(stream.key)
    for name in stream.key:
        assert schema.field(name).type == pa.string()
        assert not schema.field(name).nullable


@pytest.mark.parametrize("stream", STREAMS.values(), ids=lambda stream: stream.name)
def test_what_only_the_native_dialect_tells_may_be_null(stream: Any) -> None:
    assert all(field.nullable for field in stream.fields if field.native_only)


def test_what_is_told_on_request_may_be_null_comes_last_and_has_a_name_of_its_own() -> None:
    for stream in STREAMS.values():
        asked = [field.on_request for field in stream.fields]
        assert asked == sorted(asked)
        assert all(field.nullable for field in stream.fields if field.on_request)
    names = [field.name for stream in STREAMS.values() for field in stream.own_fields]
    assert ON_REQUEST
    assert all(names.count(name) == 1 for name in ON_REQUEST)
    assert get_args(IncludeName) == tuple(ON_REQUEST)


def test_the_types_are_the_declared_ones() -> None:
    tables = STREAMS["tables"].schema
    columns = STREAMS["columns"].schema
    indexes = STREAMS["indexes"].schema

    assert tables.field("logical_time").type == pa.timestamp("us", "UTC")
    assert tables.field("size_bytes").type == pa.int64()
    assert tables.field("store_ids").type == pa.list_(pa.int64())
    assert columns.field("ordinal_position").type == pa.int32()
    assert columns.field("is_nullable").type == pa.bool_()
    assert indexes.field("column_names").type == pa.list_(pa.string())


def test_schemas_answers_the_named_streams_alone() -> None:
    assert list(schemas(["tables", "databases"])) == ["tables", "databases"]
