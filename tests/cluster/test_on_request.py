"""Fields that may hold users' data: read where a run names them, and otherwise not even decoded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from crdbexport import ExportConfig
from crdbexport.checking import look
from crdbexport.cluster.dialects.wire_on_request import COLUMN_FIELDS, TABLE_FIELDS, table_reply
from crdbexport.records import ON_REQUEST, STREAMS
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Body, Faults, Rule
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.native.table_reply import SENSITIVE, create_statement
from crdbexport.sandbox.world import World
from tests.cluster.native_reading import Read

Native = Callable[[World], NativeSandbox]

FORMS: dict[str, Native] = {
    "v22": lambda world: NativeSandbox(world, generation="v22"),
    "v25": lambda world: NativeSandbox(world, generation="v25"),
}
ALL = tuple(ON_REQUEST)
WIRE_NAMES = {name: wire_name for name, (wire_name, _) in {**TABLE_FIELDS, **COLUMN_FIELDS}.items()}

# Everything sensitive says which field it stands in.
REPLY: dict[str, Any] = {
    "descriptor_id": 999,
    "grants": None,
    "indexes": None,
    "columns": [{"name": "id", "type": "INT8", "default_value": "#column_default", "generation_expression": "#g_e"}],
    "create_table_statement": "#create_statement",
    "configure_zone_statement": "#configure_zone_statement",
    "zone_config": {"num_replicas": 3, "subzone_spans": [{"key": "#zone_config", "subzone_index": 0}]},
}


@pytest.fixture(params=FORMS)
def native(request: pytest.FixtureRequest) -> Native:
    return FORMS[request.param]


def asked_of(told: Any, name: str) -> list[Any]:
    return [row[name] for row in told.rows(ON_REQUEST[name])]


def test_what_is_not_asked_for_is_null(read: Read, native: Native) -> None:
    told = read(native(World(1, 6)))
    assert {value for name in ALL for value in asked_of(told, name)} == {None}


@pytest.mark.parametrize("name", ALL)
def test_what_is_asked_for_is_told_and_nothing_else(read: Read, native: Native, name: str) -> None:
    told = read(native(World(1, 6)), include=(name,))
    assert any(asked_of(told, name))
    assert {value for other in ALL if other != name for value in asked_of(told, other)} == {None}


def test_statements_zones_and_expressions_are_told_as_the_server_tells_them(read: Read, native: Native) -> None:
    world = World(1, 6)
    told = read(native(world), include=ALL)
    assert told.gaps == {}
    for row in told.rows("tables"):
        table = world.table_in("movr", row["schema_name"], row["table_name"])
        assert table is not None
        assert row["create_statement"] == create_statement(table)
        assert row["configure_zone_statement"].startswith("ALTER RANGE default CONFIGURE ZONE USING\n")
        zone = json.loads(row["zone_config"])
        assert (zone["num_replicas"], zone["gc"]) == (3, {"ttl_seconds": 14400})
        assert bool(zone["subzone_spans"]) == (len(table.indexes[0].columns) > 1)
    defaults = {(row["data_type"], row["is_nullable"]): row["column_default"] for row in told.rows("columns")}
    assert defaults["UUID", False] == "gen_random_uuid()"
    assert defaults["UUID", True] is None
    assert defaults["STRING", False].startswith(f"'{SENSITIVE}'")
    generated = [row for row in told.rows("columns") if row["generation_expression"]]
    assert {(row["data_type"], row["generation_expression"]) for row in generated} == {
        ("STRING", f"concat('{SENSITIVE}', '')")
    }


@pytest.mark.parametrize("name", [None, *ALL])
def test_what_is_not_asked_for_is_never_decoded(name: str | None) -> None:
    shape = table_reply(frozenset({name} if name else ()))
    decoded = repr(msgspec.json.decode(msgspec.json.encode(REPLY), type=shape))
    assert decoded.count("#") == (1 if name else 0)
    # What is not decoded may be anything.
    wrong = {**REPLY, **{WIRE_NAMES[each]: 5 for each in TABLE_FIELDS if each != name}}
    wrong["columns"] = [{"name": "id", **{WIRE_NAMES[each]: 5 for each in COLUMN_FIELDS if each != name}}]
    msgspec.json.decode(msgspec.json.encode(wrong), type=shape)


def test_every_field_on_request_has_its_place_in_the_reply() -> None:
    assert [*TABLE_FIELDS, *COLUMN_FIELDS] == list(ALL)


def test_a_server_that_leaves_a_field_out_or_empty_tells_none(read: Read) -> None:
    empty = {"create_table_statement": "", "zone_config": None, "columns": [{"name": "id", "default_value": ""}]}
    path = "/api/v2/databases/movr/tables/public[.]users/"
    rule = Rule(path, Body(json.dumps({**REPLY, **empty, "configure_zone_statement": ""}).encode()))
    app = NativeSandbox(World(1, 1), generation="v22", faults=Faults(rules=[rule]))
    told = read(app, include=ALL)
    assert (rule.fired, told.gaps) == (1, {})
    assert {value for name in ALL for value in asked_of(told, name)} == {None}


@pytest.mark.parametrize(
    ("streams", "include", "details"),
    [
        (("tables",), (), 0),
        (("tables",), ("create_statement",), 6),
        (("tables", "table_grants"), ("zone_config",), 6),
        (("columns",), ("column_default",), 6),
    ],
)
def test_by_id_tables_cost_their_details_only_where_a_field_is_asked_for(
    read: Read, streams: tuple[str, ...], include: tuple[str, ...], details: int
) -> None:
    app = FORMS["v25"](World(1, 6))
    told = read(app, streams, include=include)
    assert told.gaps == {}
    asked = [path for path in app.hits if path.startswith("/api/v2/databases/movr/tables/")]
    assert len(asked) - 1 == details
    assert not [path for path in app.hits if "/grants/tables/" in path]
    assert {row["details"] for row in told.rows("tables")} <= {"fetched" if details else "not_requested"}
    for name in include:
        assert any(asked_of(told, name))


def test_tables_that_no_name_reaches_keep_their_measures_and_lack_what_was_asked_for(read: Read) -> None:
    told = read(FORMS["v25"](World(native_names=True)), ("tables",), ("names",), include=("create_statement",))
    [row] = told.rows("tables", table_name="a.b")
    assert (row["details"], row["create_statement"]) == ("unaddressable", None)
    assert row["replicated_bytes"] is not None
    assert told.gaps["details", "names", "public", "a.b"] == "unaddressable"


def test_the_documented_form_tells_none_of_them_and_says_so_once(
    serve: Callable[[ClusterApp], str], extract: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told = extract(serve(Sandbox(World(1, 2))), include=ALL)
    [warning] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warning == f"--include: null, for no server of this form tells {', '.join(sorted(ALL))}"
    for name, stream in ON_REQUEST.items():
        place = [field.name for field in STREAMS[stream].own_fields].index(name)
        assert {row[place] for row in told.rows(stream)} == {None}


@pytest.mark.parametrize(("include", "requests"), [((), 0), (("create_statement",), 6)])
def test_a_check_counts_the_details_that_a_field_costs(
    serve: Callable[[ClusterApp], str], settings: dict[str, Any], include: tuple[str, ...], requests: int
) -> None:
    config = {**settings, "url": (serve(FORMS["v25"](World(1, 6))),), "stream": ("tables",), "include": include}
    result = asyncio.run(look(ExportConfig(**config)))
    # Health, login, logout; three lists for the cluster; two lists for the one database.
    assert result.run_requests == 3 + 3 + 2 + requests
