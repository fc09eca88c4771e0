from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from native_records import CHOSEN, NOW
from native_scenarios import NATIVE, ON_PAGE
from record import CASSETTES
from replaying import Replay
from scenarios import ATTEMPTS
from scrubbing import ORIGIN, PLACEHOLDER, SECRET_FIELDS, SESSION_HEADER
from tape import exchanges

from crdbexport.sandbox.native.table_reply import SENSITIVE

STATS_AGE = timedelta(seconds=60)


@pytest.fixture
def replay(request: pytest.FixtureRequest, play: Callable[[str], Replay]) -> Replay:
    """The scenarios that the test names, in turn."""
    return play(request.param)


def cassette(name: str) -> Path:
    return CASSETTES / "native" / f"{name}.yaml"


def answers(name: str, path: str) -> list[tuple[int, str]]:
    """What was answered below a path: statuses and bodies."""
    below = [each for each in exchanges(cassette(name)) if each["request"]["uri"].startswith(f"{ORIGIN}/api/v2/{path}")]
    return [(each["response"]["status"]["code"], each["response"]["body"]["string"]) for each in below]


def of(*names: str) -> Any:
    return pytest.mark.parametrize("replay", names, indirect=True)


def of_both(name: str) -> Any:
    return of(f"v22_{name}", f"v25_{name}")


@of(*NATIVE)
def test_what_is_published_is_what_the_world_holds_but_for_the_gaps(replay: Replay) -> None:
    told = {
        stream: [tuple(record[field] for field in CHOSEN[stream]) for record in records]
        for stream, records in replay.published.items()
    }
    assert told == replay.scenario.rows()


@of_both("quoted_names")
def test_a_name_that_sql_would_fold_or_not_parse_is_never_asked_for(replay: Replay) -> None:
    tables = {found[1] for each in replay.asked if (found := re.fullmatch(r"databases/names/tables/(.+)/", each))}
    assert tables == {
        "a.b",
        "audit.users",
        "pg_temp_1700000000000000000_1.scratch",
        "public.heap",
        "public.order",
        "public.order_totals",
        "public.select",
        "public.users",
    }
    assert not [each for each in replay.asked if "node-red" in each or "%" in each]


@of_both("views")
def test_a_view_is_asked_for_once_more_when_all_else_is_read(replay: Replay) -> None:
    view = replay.asked[-2]
    assert (replay.asked[-1], replay.asked.count(view)) == ("logout/", 2)
    assert "/tables/public.recent_" in view
    assert replay.report.requests.retried == 0


@of_both("paged_lists")
def test_pages_are_followed_to_the_empty_one_and_no_further(replay: Replay) -> None:
    window = f"limit={ON_PAGE}&offset="
    tables = [each.partition("?")[2] for each in replay.asked if each.startswith("databases/movr/tables/?")]
    assert tables == [f"{window}{ON_PAGE}", f"{window}{2 * ON_PAGE}"]
    databases = [each.partition("?")[2] for each in replay.asked if each.startswith("databases/?")]
    assert databases == [f"{window}{ON_PAGE}", f"{window}{2 * ON_PAGE}"]


@pytest.mark.parametrize("name", ["v22_paged_lists", "v25_paged_lists"])
def test_only_a_list_that_the_server_does_not_count_ends_in_an_empty_page(name: str) -> None:
    *_, last_but_one, last = answers(name, "databases/movr/tables/?")
    assert (f'"next":{2 * ON_PAGE}' in last_but_one[1], last) == (True, (200, "{}"))
    assert answers(name, "databases/?")[-1] == (200, '{"databases":["system"]}')


@of_both("list_without_end")
def test_a_next_that_stands_still_is_not_followed(replay: Replay) -> None:
    assert Counter(each.partition("?")[0] for each in replay.asked)["databases/movr/tables/"] == 2


@of_both("database_dropped")
def test_a_database_that_fails_is_looked_for_in_the_list_and_not_tried_again(replay: Replay) -> None:
    assert (replay.asked.count("databases/gone/"), replay.asked.count("databases/")) == (1, 2)
    assert replay.report.requests.retried == 0


@of_both("insecure")
def test_without_a_login_no_session_is_sent(replay: Replay) -> None:
    assert not [request for request in replay.cassette.requests if SESSION_HEADER in request.headers]


@of("v25_https_only")
def test_one_request_without_a_secret_meets_the_redirect(replay: Replay) -> None:
    [health] = replay.cassette.requests
    assert (health.method, health.body, dict(health.headers)) == ("GET", b"", {})


@of("v25_metadata_fail", "v25_table_metadata_fail")
def test_metadata_are_tried_as_often_as_anything_else(replay: Replay) -> None:
    [(most_asked, times)] = Counter(replay.asked).most_common(1)
    assert "_metadata/?" in most_asked
    assert replay.report.requests.by_status["500"] == times == ATTEMPTS


@of("v25_full_export")
def test_measures_of_a_filled_cache_say_when_they_were_taken(replay: Replay) -> None:
    times = [datetime.fromisoformat(record["stats_as_of"]) for record in replay.published["tables"]]
    assert {(NOW - each) // STATS_AGE for each in times} == {1}


@of("v22_full_export", "v25_cold_cache", "v25_metadata_fail", "v25_table_metadata_fail")
def test_what_was_not_read_from_the_cache_has_no_time(replay: Replay) -> None:
    assert {record["stats_as_of"] for record in replay.published["tables"]} == {None}


def test_what_may_hold_data_of_users_is_recorded_as_a_placeholder() -> None:
    bodies = "".join(body for name in NATIVE for _, body in answers(name, ""))
    fields = {field for field in SECRET_FIELDS if f'"{field}":"{PLACEHOLDER}"' in bodies}
    assert fields == set(SECRET_FIELDS) - {"create_statement", "end_key"}
    assert SENSITIVE not in bodies
    assert "CREATE TABLE" not in bodies
