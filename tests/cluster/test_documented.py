from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from crdbexport.cluster.dialects.documented import DocumentedDialect
from crdbexport.cluster.model import Column, Database, DatabaseDetails, Grant, Index, Parts, Table, TableDetails
from crdbexport.errors import UnexpectedServerError, UnreadableError
from crdbexport.records import STREAMS
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

Serve = Callable[[Sandbox], str]
Ask = Callable[..., Any]

DIALECT = DocumentedDialect()
PRODUCTION = Database("production", 54)
USERS = Table("production", "public", "users", table_id=55)

# As the public page of the API shows them.
DATABASE: dict[str, Any] = {
    "database_name": "production",
    "descriptor_id": "54",
    "size_bytes": 1073741824,
    "table_count": 15,
    "store_ids": [1, 2, 3],
}
TABLE: dict[str, Any] = {
    "table_name": "users",
    "table_id": "55",
    "database_name": "production",
    "schema_name": "public",
    "columns": [
        {"name": "id", "type": "UUID", "nullable": False},
        {"name": "email", "type": "STRING", "nullable": True},
    ],
    "indexes": [
        {"name": "primary", "columns": ["id"], "unique": True},
        {"name": "users_email_idx", "columns": ["email", "id"], "unique": False},
    ],
    "grants": [{"user": "admin", "privileges": ["ALL"]}, {"user": "app", "privileges": ["SELECT", "INSERT"]}],
    "range_count": 12,
    "size_bytes": 524288000,
}
READ_TABLE = TableDetails(
    table_id=55,
    size_bytes=524288000,
    range_count=12,
    columns=(Column("id", "UUID", False), Column("email", "STRING", True)),
    indexes=(Index("primary", True, ("id",)), Index("users_email_idx", False, ("email", "id"))),
    grants=(Grant("admin", "ALL"), Grant("app", "SELECT"), Grant("app", "INSERT")),
)


def without(reply: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in reply.items() if name not in fields}


@pytest.fixture
def ask(serve: Serve, scripted: Any, in_session: Any) -> Ask:
    """What a method of the dialect makes of one answer."""

    def run(path: str, answer: Any, method: Callable[..., Any], *arguments: Any) -> Any:
        url = serve(scripted({path: answer}))
        return in_session(url, lambda session: method(session, *arguments), no_login=True)

    return run


def refused(ask: Ask, *arguments: Any) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        ask(*arguments)
    return caught.value


def test_the_documented_databases_are_read(ask: Ask) -> None:
    answer = {"databases": [{"name": "production", "id": "54"}, {"name": "a", "id": 7}, {"name": "new"}]}
    assert ask("databases", answer, DIALECT.databases) == [PRODUCTION, Database("a", 7), Database("new", None)]


def test_the_documented_database_is_read(ask: Ask) -> None:
    details = ask("databases/production", DATABASE, DIALECT.database_details, PRODUCTION)
    assert details == DatabaseDetails(database_id=54, size_bytes=1073741824, table_count=15, store_ids=(1, 2, 3))


def test_the_documented_database_grants_are_read(ask: Ask) -> None:
    answer = {"grants": [{"user": "b", "privileges": ["SELECT", "INSERT"]}, {"user": "a", "privileges": []}]}
    grants = ask("databases/production/grants", answer, DIALECT.database_grants, PRODUCTION)
    assert grants == [Grant("b", "SELECT"), Grant("b", "INSERT")]


def test_the_documented_tables_are_read(ask: Ask) -> None:
    listed = [
        {"name": "users", "schema_name": "public", "table_id": "55", "size_bytes": 524288000},
        {"name": "orders", "schema_name": "public", "table_id": 56, "size_bytes": "1"},
        {"name": "users", "schema_name": "audit"},
    ]
    tables = ask("databases/production/tables", {"tables": listed}, DIALECT.tables, PRODUCTION)
    assert tables == [
        Table("production", "public", "users", 55, 524288000, shares_name=True),
        Table("production", "public", "orders", 56, 1),
        Table("production", "audit", "users", shares_name=True),
    ]


def test_a_table_that_is_listed_twice_shares_its_name_with_nobody(ask: Ask) -> None:
    listed = [{"name": "users", "schema_name": "public"}] * 2
    tables = ask("databases/production/tables", {"tables": listed}, DIALECT.tables, PRODUCTION)
    assert [table.shares_name for table in tables] == [False, False]


def test_the_documented_table_is_read(ask: Ask) -> None:
    assert ask("databases/production/tables/users", TABLE, DIALECT.table_details, USERS) == READ_TABLE


def test_numbers_may_come_as_strings(ask: Ask) -> None:
    strings = {**TABLE, "range_count": "12", "size_bytes": "524288000", "table_id": 55}
    assert ask("databases/production/tables/users", strings, DIALECT.table_details, USERS) == READ_TABLE
    strings = {**DATABASE, "size_bytes": "1073741824", "table_count": "15", "store_ids": ["1", 2, "3"]}
    details = ask("databases/production", strings, DIALECT.database_details, PRODUCTION)
    assert (details.size_bytes, details.table_count, details.store_ids) == (1073741824, 15, (1, 2, 3))


def test_fields_that_are_not_known_are_passed_over(ask: Ask) -> None:
    extended = {**TABLE, "ttl": {"deep": [1, None]}, "columns": [{**each, "new": 1} for each in TABLE["columns"]]}
    assert ask("databases/production/tables/users", extended, DIALECT.table_details, USERS) == READ_TABLE


def test_what_is_absent_or_null_is_unknown_and_not_zero(ask: Ask) -> None:
    absent = DatabaseDetails(database_id=None, size_bytes=None, table_count=None, store_ids=None)
    assert ask("databases/production", {}, DIALECT.database_details, PRODUCTION) == absent
    nulls = dict.fromkeys(DATABASE)
    assert ask("databases/production", nulls, DIALECT.database_details, PRODUCTION) == absent
    zeros = {**DATABASE, "size_bytes": 0, "table_count": "0", "store_ids": []}
    details = ask("databases/production", zeros, DIALECT.database_details, PRODUCTION)
    assert (details.size_bytes, details.table_count, details.store_ids) == (0, 0, ())


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (without(TABLE, "columns"), "Object missing required field `columns`"),
        (without(TABLE, "indexes"), "Object missing required field `indexes`"),
        (without(TABLE, "grants"), "Object missing required field `grants`"),
        ({**TABLE, "grants": {}}, "Expected `array`, got `object` - at `$.grants`"),
        ({**TABLE, "grants": [{"user": "a"}]}, "Object missing required field `privileges` - at `$.grants[0]`"),
        (
            {**TABLE, "grants": [{"user": "a", "privileges": ["ALL", 1]}]},
            "Expected `str`, got `int` - at `$.grants[0].privileges[1]`",
        ),
        ({**TABLE, "size_bytes": 1.5}, "Expected `int | null`, got `float` - at `$.size_bytes`"),
        ({**TABLE, "size_bytes": "big"}, "Expected `int | null`, got `str` - at `$.size_bytes`"),
        ({**TABLE, "range_count": True}, "Expected `int | null`, got `bool` - at `$.range_count`"),
        (
            {**TABLE, "columns": [*TABLE["columns"], {"name": "x", "type": "INT8"}]},
            "Object missing required field `nullable` - at `$.columns[2]`",
        ),
        (
            {**TABLE, "columns": [{"name": None, "type": "INT8", "nullable": True}]},
            "Expected `str`, got `null` - at `$.columns[0].name`",
        ),
        (
            {**TABLE, "indexes": [{"name": "i", "columns": "id", "unique": True}]},
            "Expected `array`, got `str` - at `$.indexes[0].columns`",
        ),
    ],
)
def test_a_table_that_lacks_or_mistypes_a_field_is_a_bad_body_that_names_it(
    wrong: dict[str, Any], problem: str, ask: Ask
) -> None:
    error = refused(ask, "databases/production/tables/users", wrong, DIALECT.table_details, USERS)
    assert error.reason == "bad_body"
    assert str(error) == f"GET databases/production/tables/users answered {problem}"


@pytest.mark.parametrize("answer", [{}, [], None, {"databases": {}}, {"databases": ["production"]}, {"tables": []}])
def test_a_list_of_databases_of_another_form_ends_the_run_with_a_hint(answer: Any, ask: Ask) -> None:
    with pytest.raises(
        UnexpectedServerError, match=r"check --url|the server answers in the native form; leave --dialect out"
    ):
        ask("databases", msgspec.json.encode(answer), DIALECT.databases)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"database_name": "Production"}, 'asked for database_name "production", the reply tells of "Production"'),
        ({"descriptor_id": "540"}, 'asked for descriptor_id "54", the reply tells of "540"'),
    ],
)
def test_a_reply_about_another_database_is_ambiguous(wrong: dict[str, Any], told: str, ask: Ask) -> None:
    error = refused(ask, "databases/production", {**DATABASE, **wrong}, DIALECT.database_details, PRODUCTION)
    assert (error.reason, str(error)) == ("ambiguous", told)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"database_name": "staging"}, 'asked for database_name "production", the reply tells of "staging"'),
        ({"schema_name": "audit"}, 'asked for schema_name "public", the reply tells of "audit"'),
        ({"table_name": "Users"}, 'asked for table_name "users", the reply tells of "Users"'),
        ({"table_id": "550"}, 'asked for table_id "55", the reply tells of "550"'),
        ({"table_name": "x\n\x1b[2J"}, 'asked for table_name "users", the reply tells of "x\\n\\x1b[2J"'),
    ],
)
def test_a_reply_about_another_table_is_ambiguous(wrong: dict[str, Any], told: str, ask: Ask) -> None:
    error = refused(ask, "databases/production/tables/users", {**TABLE, **wrong}, DIALECT.table_details, USERS)
    assert (error.reason, str(error)) == ("ambiguous", told)


def test_a_reply_that_names_nothing_is_taken_for_the_only_table_of_the_name(ask: Ask) -> None:
    nameless = without(TABLE, "database_name", "schema_name", "table_name", "table_id")
    details = ask("databases/production/tables/users", nameless, DIALECT.table_details, USERS)
    assert (details.table_id, details.columns) == (None, READ_TABLE.columns)


@pytest.mark.parametrize(
    ("table_id", "told", "proven"),
    [
        (55, ("schema_name",), True),
        (None, ("schema_name",), True),
        (55, ("table_id",), True),
        (None, ("table_id",), False),
        (55, ("table_name", "database_name"), False),
    ],
)
def test_a_reply_about_a_shared_name_has_to_prove_which_one_it_tells_of(
    table_id: int | None, told: tuple[str, ...], proven: bool, ask: Ask
) -> None:
    shared = Table("production", "public", "users", table_id=table_id, shares_name=True)
    names = {"database_name", "schema_name", "table_name", "table_id"} - set(told)
    request = ("databases/production/tables/users", without(TABLE, *names), DIALECT.table_details, shared)
    if proven:
        assert ask(*request).columns == READ_TABLE.columns
    else:
        assert refused(ask, *request).reason == "ambiguous"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_no_url_can_carry_is_not_asked_for(name: str, serve: Serve, scripted: Any, in_session: Any) -> None:
    app = scripted({})
    url = serve(app)

    async def work(session: Any) -> list[str]:
        reasons = []
        database, table = Database(name), Table("production", "public", name)
        for reading in (
            DIALECT.database_details(session, database),
            DIALECT.database_grants(session, database),
            DIALECT.tables(session, database),
            DIALECT.table_details(session, table),
            DIALECT.table_details(session, Table(name, "public", "users")),
        ):
            with pytest.raises(UnreadableError) as caught:
                await reading
            reasons.append(caught.value.reason)
        return reasons

    assert in_session(url, work, no_login=True) == ["unaddressable"] * 5
    assert app.paths == ["health"]


ON_THE_WIRE = {
    "a/b": "a%2Fb",
    "50%": "50%25",
    "Prod-Data": "Prod-Data",
    "?q#f": "%3Fq%23f",
    "emoji 🚀": "emoji%20%F0%9F%9A%80",
    "with space": "with%20space",
    'quote"inside': "quote%22inside",
    "Ünïcode": "%C3%9Cn%C3%AFcode",
    "semi;colon&amp": "semi%3Bcolon%26amp",
    "line\nbreak": "line%0Abreak",
    "trailing.": "trailing.",
}


def test_hard_names_stand_on_the_wire_as_one_segment_each(serve: Serve, record: Any, extract: Any) -> None:
    world = World(0, 0, hostile_names=True)
    assert set(world.database_names()) <= {*ON_THE_WIRE, ".", "..", "twins", "system"}
    app = record(world=world)
    read = extract(serve(app))
    asked = set(app.paths)
    for raw in ON_THE_WIRE.values():
        assert {f"databases/{raw}", f"databases/{raw}/grants", f"databases/{raw}/tables"} <= asked
        assert f"databases/{raw}/tables/{raw}" in asked
    details = {row[0]: row[-1] for row in read.rows("databases")}
    assert {details[name] for name in ON_THE_WIRE} == {"fetched"}
    assert details["."] == details[".."] == "unaddressable"


LOOK_ENCODED = ["%2e%2e", "%2F", "%", "%zz", "+", "~", "a\x00b", "\u200b", "...", "..;", "\\..\\"]


def test_names_that_look_encoded_are_asked_for_as_they_are(serve: Serve, record: Any, in_session: Any) -> None:
    app = record(require_login=False)

    async def work(session: Any) -> None:
        for name in LOOK_ENCODED:
            with pytest.raises(UnreadableError) as caught:
                await DIALECT.database_details(session, Database(name))
            assert caught.value.reason == "not_found"

    in_session(serve(app), work, no_login=True)
    segments = [path.split("/")[1:] for path in app.paths if path != "health"]
    assert [[unquote(each) for each in path] for path in segments] == [[name] for name in LOOK_ENCODED]


TABLE_STREAMS = ("tables", "columns", "indexes", "table_grants")


@pytest.mark.parametrize(
    ("streams", "parts"),
    [
        (("databases",), Parts(True, False, False, False)),
        (("database_grants",), Parts(False, True, False, False)),
        *[((stream,), Parts(False, False, True, True)) for stream in TABLE_STREAMS],
        (tuple(STREAMS), Parts(True, True, True, True)),
        ((), Parts(False, False, False, False)),
    ],
)
def test_only_what_the_streams_need_is_asked_for(streams: tuple[str, ...], parts: Parts) -> None:
    assert DIALECT.parts(streams) == parts
