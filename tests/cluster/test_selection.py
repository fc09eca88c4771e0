from __future__ import annotations

import pytest

from crdbexport.records import GAP_REASONS, STREAMS, Gap
from crdbexport.selection import Coverage, Selection, coverage_of

TABLE_LEVEL = ("columns", "indexes", "table_grants")


@pytest.mark.parametrize(
    ("include", "exclude", "database", "selected"),
    [
        ((), (), "movr", True),
        ((), (), "", True),
        ((), ("movr",), "movr", False),
        ((), ("m*",), "movr", False),
        ((), ("m*",), "bank", True),
        (("bank",), (), "movr", False),
        (("bank", "movr"), (), "movr", True),
        (("m*",), (), "movr", True),
        (("m*",), ("movr",), "movr", False),
        (("m???",), (), "movr", True),
        (("m??",), (), "movr", False),
        (("[mn]ovr",), (), "movr", True),
        (("[!m]ovr",), (), "movr", False),
        (("MOVR",), (), "movr", False),
        (("movr",), (), "Movr", False),
        (("*",), (), "line\nbreak", True),
    ],
)
def test_databases_are_selected_by_glob_with_regard_to_case(
    include: tuple[str, ...], exclude: tuple[str, ...], database: str, selected: bool
) -> None:
    assert Selection(include, exclude).selects(database) is selected


@pytest.mark.parametrize(
    ("include", "exclude", "selected"),
    [
        ((), (), False),
        (("*",), (), False),
        (("s*", "syste?"), (), False),
        (("system",), (), True),
        (("movr", "system"), (), True),
        (("system",), ("system",), False),
        (("system",), ("sys*",), False),
    ],
)
def test_system_is_selected_by_its_very_name_only(
    include: tuple[str, ...], exclude: tuple[str, ...], selected: bool
) -> None:
    assert Selection(include, exclude).selects("system") is selected


@pytest.mark.parametrize("name", ["a[b]c", "*", "what?", "[", "[!x]", "a*"])
def test_a_name_that_looks_like_a_glob_may_be_given_literally(name: str) -> None:
    assert Selection(include=(name,)).selects(name)
    assert not Selection(exclude=(name,)).selects(name)
    assert Selection(include=(name,)).unmatched([name]) == []


def test_patterns_that_match_nothing_are_told_in_their_order() -> None:
    selection = Selection(include=("x*", "movr", "nobody", "b*"), exclude=("bank",))
    assert selection.unmatched(["movr", "bank"]) == ["x*", "nobody"]
    assert selection.unmatched([]) == ["x*", "movr", "nobody", "b*"]


def covered(stream: str, *gaps: Gap, selection: Selection | None = None) -> Coverage:
    return coverage_of(stream, selection or Selection(), gaps)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_run_without_gaps_covers_every_selected_database(stream: str) -> None:
    coverage = covered(stream, selection=Selection(include=("m*",), exclude=("mine",)))
    assert coverage.covers("movr")
    assert coverage.covers("movr", "public", "users")
    assert not coverage.covers("mine")
    assert not coverage.covers("bank", "public", "users")
    assert not coverage.covers("system")


GAPS = {
    "the database's details": Gap("d", "details", "forbidden"),
    "the database's grants": Gap("d", "grants", "forbidden"),
    "the list of tables": Gap("d", "tables", "forbidden"),
    "a table's details": Gap("d", "details", "forbidden", "s", "t"),
}
HIDDEN = {
    # A listed object always has its record, so that missing details hide no record of its own stream.
    "the database's details": {},
    "the database's grants": {"database_grants": "all of it"},
    "the list of tables": dict.fromkeys(("tables", *TABLE_LEVEL), "all of it"),
    "a table's details": dict.fromkeys(TABLE_LEVEL, "the table"),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("missing", GAPS)
def test_a_gap_hides_just_the_records_that_come_from_what_was_not_read(missing: str, stream: str) -> None:
    coverage, hidden = covered(stream, GAPS[missing]), HIDDEN[missing].get(stream)
    assert coverage.covers("d", "s", "t") is (hidden is None)
    assert coverage.covers("d", "other", "t") is (hidden != "all of it")
    assert coverage.covers("d", "s", "other") is (hidden != "all of it")
    assert coverage.covers("d") is (hidden != "all of it")
    assert coverage.covers("another", "s", "t")


@pytest.mark.parametrize("reason", GAP_REASONS)
def test_only_what_was_dropped_meanwhile_is_covered_although_it_was_not_read(reason: str) -> None:
    dropped = reason == "not_found"
    assert covered("columns", Gap("d", "details", reason, "s", "t")).covers("d", "s", "t") is dropped
    # Of a whole database the next list will tell: a proxy may answer 404 for what is there.
    assert not covered("columns", Gap("d", "tables", reason)).covers("d", "s", "t")
    assert not covered("database_grants", Gap("d", "grants", reason)).covers("d")


def masked(field: str, name: str) -> str:
    return f"{field}:{name[::-1]}"


def test_renamed_records_of_a_whole_run_are_covered_but_for_the_system_database() -> None:
    coverage = coverage_of("tables", Selection(), (), masked)
    assert coverage.covers(masked("database_name", "movr"), "another", "third")
    assert not coverage.covers(masked("database_name", "system"))


@pytest.mark.parametrize("selection", [Selection(include=("m*",)), Selection(exclude=("m*",))])
def test_of_renamed_records_of_a_part_of_the_cluster_nothing_is_known(selection: Selection) -> None:
    coverage = coverage_of("tables", selection, (), masked)
    assert not coverage.covers("movr")
    assert not coverage.covers(masked("database_name", "movr"), "public", "users")


def test_a_renamed_gap_hides_just_its_own_renamed_records() -> None:
    coverage = coverage_of("tables", Selection(), (Gap(masked("database_name", "d"), "tables", "forbidden"),), masked)
    assert not coverage.covers(masked("database_name", "d"))
    assert coverage.covers(masked("database_name", "e"))
