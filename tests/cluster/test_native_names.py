from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdbexport.cluster.dialects.native_names import database_segment, parse_listed, quoted, table_segment
from crdbexport.sandbox.native.names import listed, resolved

NAMES = st.text(max_size=12) | st.sampled_from(["users", "Users", "a.b", 'a"b', '""', ".", "", "order", "größe", "a b"])


@pytest.mark.slow
@given(NAMES, NAMES)
@example("", "")
@example('"', '."."')
def test_a_quoted_name_is_parsed_back_to_itself(schema: str, table: str) -> None:
    assert parse_listed(f"{quoted(schema)}.{quoted(table)}") == (schema, table, True)


@given(NAMES, NAMES)
def test_what_the_server_lists_is_parsed_back_to_its_parts(schema: str, table: str) -> None:
    assert parse_listed(listed(schema, table))[:2] == (schema, table)


@given(NAMES, NAMES)
def test_an_address_leads_the_server_to_the_very_table(schema: str, table: str) -> None:
    address = table_segment(parse_listed(listed(schema, table)))
    assert address is None or resolved(address) == (schema, table)


@pytest.mark.parametrize(
    "text", ["users", "a.b.c", "", ".", "a.", ".a", '"a.b', 'a."b', '"a"b', 'a"b".c', 'a."b"c', '"a""."b"', "a..b"]
)
def test_what_is_not_two_parts_is_no_listed_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"not schema\.table"):
        parse_listed(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("public.users", "public.users"),
        ('public."order"', "public.order"),
        ("pg_temp_17_1.scratch", "pg_temp_17_1.scratch"),
        ('public."Users"', None),
        ('public."2024_sales"', None),
        ('public."order-items"', None),
        ('public."a.b"', None),
        ('"group".t', None),
        ('"My Schema".t', None),
        ('public."größe"', None),
    ],
)
def test_only_names_that_sql_takes_for_themselves_have_an_address(text: str, address: str | None) -> None:
    assert table_segment(parse_listed(text)) == address


@pytest.mark.parametrize(
    ("name", "addressable"),
    [
        *[(name, True) for name in ("movr", "Mixed_Case", "2024_archive", "dotted.name", "...", "_")],
        *[
            (name, False)
            for name in ("", ".", "..", "node-red", "data lake", "größe", "a/b", "a\n", "cost$centre", "٣")
        ],
    ],
)
def test_only_names_of_ascii_letters_digits_underscores_and_dots_have_a_route(name: str, addressable: bool) -> None:
    assert database_segment(name) == (name if addressable else None)
