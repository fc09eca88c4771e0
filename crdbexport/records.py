"""The six streams, as data: what a record is called, what identifies it, and which fields it has.

Field names follow CockroachDB's own SHOW output. `record_id` is the same for the same object in every run and on every
machine; `record_id_vectors.json` beside this file holds test vectors for other implementations.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

GapReason = Literal[
    "not_found",
    "forbidden",
    "unaddressable",
    "ambiguous",
    "view",
    "too_large",
    "bad_body",
    "server_error",
    "timeout",
    "pagination_loop",
]
GAP_REASONS: tuple[str, ...] = get_args(GapReason)
FETCHED = "fetched"
NOT_REQUESTED = "not_requested"

Part = Literal["details", "grants", "tables"]


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of one object that could not be read. `reason` comes from a closed list."""

    database: str
    part: Part
    reason: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(GAP_REASONS)})]
    schema: str | None = None
    table: str | None = None
    http_status: int | None = None


@dataclass(frozen=True)
class Field:
    """One column of a stream. `type` is Arrow's own spelling of the type, one of the keys of `_arrow_types`.

    What is `on_request` may hold users' data: it is null unless a run asks for it by name.
    """

    name: str
    type: str
    nullable: bool = False
    native_only: bool = False
    on_request: bool = False


@dataclass(frozen=True)
class Stream:
    """A kind of record: its name, the fields that identify a record within a cluster, and all its own fields."""

    name: str
    description: str
    key: tuple[str, ...]
    own_fields: tuple[Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The envelope that every record starts with, then the stream's own fields."""
        return ENVELOPE + self.own_fields

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the stream; it may gain nullable fields, and never loses or retypes one."""
        import pyarrow as pa

        types = _arrow_types()
        return pa.schema([pa.field(f.name, types[f.type], nullable=f.nullable) for f in self.fields])


@functools.cache
def _arrow_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    known = [
        pa.string(),
        pa.bool_(),
        pa.int32(),
        pa.int64(),
        pa.timestamp("us", "UTC"),
        pa.list_(pa.int64()),
        pa.list_(pa.string()),
    ]
    return {_plain(str(each)): each for each in known}


def _plain(arrow_spelling: str) -> str:
    return arrow_spelling.replace("list<item: ", "list<")


TIMESTAMP = "timestamp[us, tz=UTC]"

ENVELOPE = (
    Field("cluster", "string"),
    Field("run_id", "string"),
    Field("logical_time", TIMESTAMP),
    Field("extracted_at", TIMESTAMP),
    Field("record_id", "string"),
)
RECORD_ID_INDEX = len(ENVELOPE) - 1

_DATABASE = (Field("database_name", "string"),)
_TABLE = (*_DATABASE, Field("schema_name", "string"), Field("table_name", "string"))
_GRANT = (Field("grantee", "string"), Field("privilege_type", "string"))


def _on_request(name: str) -> Field:
    return Field(name, "string", nullable=True, native_only=True, on_request=True)


def _key(fields: tuple[Field, ...]) -> tuple[str, ...]:
    return tuple(f.name for f in fields)


_ALL = (
    Stream(
        "databases",
        "one record a database: id, size, number of tables, stores",
        _key(_DATABASE),
        (
            *_DATABASE,
            Field("database_id", "int64", nullable=True),
            Field("size_bytes", "int64", nullable=True),
            Field("replicated_bytes", "int64", nullable=True, native_only=True),
            Field("table_count", "int64", nullable=True),
            Field("store_ids", "list<int64>", nullable=True),
            Field("stats_as_of", TIMESTAMP, nullable=True, native_only=True),
            Field("details", "string"),
        ),
    ),
    Stream(
        "database_grants",
        "one record a privilege that a grantee holds on a database",
        _key(_DATABASE + _GRANT),
        _DATABASE + _GRANT,
    ),
    Stream(
        "tables",
        "one record a table: id, size of one copy, ranges",
        _key(_TABLE),
        (
            *_TABLE,
            Field("table_id", "int64", nullable=True),
            Field("kind", "string", nullable=True, native_only=True),
            Field("size_bytes", "int64", nullable=True),
            Field("replicated_bytes", "int64", nullable=True, native_only=True),
            Field("live_bytes", "int64", nullable=True, native_only=True),
            Field("range_count", "int64", nullable=True),
            Field("replica_count", "int64", nullable=True, native_only=True),
            Field("store_ids", "list<int64>", nullable=True, native_only=True),
            Field("stats_as_of", TIMESTAMP, nullable=True, native_only=True),
            Field("details", "string"),
            _on_request("create_statement"),
            _on_request("configure_zone_statement"),
            _on_request("zone_config"),
        ),
    ),
    Stream(
        "columns",
        "one record a column of a table, in the table's own order",
        (*_key(_TABLE), "column_name"),
        (
            *_TABLE,
            Field("column_name", "string"),
            Field("ordinal_position", "int32"),
            Field("data_type", "string"),
            Field("is_nullable", "bool"),
            Field("is_hidden", "bool", nullable=True, native_only=True),
            _on_request("column_default"),
            _on_request("generation_expression"),
        ),
    ),
    Stream(
        "indexes",
        "one record an index of a table, with its key columns in order",
        (*_key(_TABLE), "index_name"),
        (
            *_TABLE,
            Field("index_name", "string"),
            Field("is_unique", "bool"),
            Field("column_names", "list<string>"),
            Field("directions", "list<string>", nullable=True, native_only=True),
            Field("stored_columns", "list<string>", nullable=True, native_only=True),
        ),
    ),
    Stream(
        "table_grants",
        "one record a privilege that a grantee holds on a table",
        _key(_TABLE + _GRANT),
        _TABLE + _GRANT,
    ),
)

STREAMS: dict[str, Stream] = {stream.name: stream for stream in _ALL}

ON_REQUEST: dict[str, str] = {f.name: stream.name for stream in _ALL for f in stream.own_fields if f.on_request}
"""The stream of each field that a run may ask for by name."""


def schemas(streams: Iterable[str]) -> dict[str, pa.Schema]:
    """The Arrow schemas of the named streams."""
    return {name: STREAMS[name].schema for name in streams}


def record_id(cluster: str, stream: str, key: Sequence[str]) -> str:
    """The identity of a record: BLAKE2b-128, in hex, of the compact JSON array `[cluster, stream, *key]` in UTF-8.

    JSON escapes only what it must; names are not normalised, so that two names that differ in any code point differ.
    """
    return record_ids(cluster, stream, [key])[0]


def record_ids(cluster: str, stream: str, keys: Iterable[Sequence[str]]) -> list[str]:
    """The `record_id` of each key, which is a list or a tuple."""
    # The array's beginning is the same for all.
    begin = msgspec.json.encode([cluster, stream])[:-1] + b","
    encode = msgspec.json.Encoder().encode
    return [blake2b(begin + encode(key)[1:], digest_size=16).hexdigest() for key in keys]
