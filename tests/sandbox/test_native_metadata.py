from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crdbexport.sandbox.native.table_reply import SENSITIVE
from crdbexport.sandbox.world import World

NOON = datetime(2026, 3, 1, 12, 0, 0, 100_000, tzinfo=UTC)
INTERNAL = (500, "An internal server error has occurred. Please check your CockroachDB logs for more details.")
JOB = "/table_metadata/updatejob/"
TRIGGERED = {"job_triggered": True, "message": "Job triggered successfully"}
TOO_MANY_DIGITS = "9" * 30


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def world() -> World:
    return World(native_names=True, views=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rows(cluster: Any, path: str, size: int = 1000, **query: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] | None = cluster.told(path, pageSize=size, **query)["results"]
    return found or []


def triggered(cluster: Any, query: str = "") -> dict[str, Any]:
    answer = cluster.client.post(f"{JOB}{query}")
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def test_databases_tell_size_tables_and_stores_by_id(named: Any, world: World) -> None:
    listed = rows(named, "/database_metadata/")
    assert [row["db_name"] for row in listed][:3] == ["system", "movr", "bank"]
    assert {row["db_name"] for row in listed} == set(world.database_names())
    bank = next(row for row in listed if row["db_name"] == "bank")
    database = world.database("bank")
    assert database is not None
    assert bank.pop("last_updated").endswith("Z")
    assert bank == {
        "db_id": database.id,
        "db_name": "bank",
        "size_bytes": world.replicated_bytes("bank"),
        "table_count": 12,
        "store_ids": list(database.store_ids),
    }


def test_a_database_without_tables_is_all_zeros_and_nulls(named: Any, world: World) -> None:
    database_id = world.database_id("defaultdb")
    assert named.told(f"/database_metadata/{database_id}/") == {
        "metadata": {
            "db_id": database_id,
            "db_name": "defaultdb",
            "size_bytes": 0,
            "table_count": 0,
            "store_ids": None,
            "last_updated": None,
        }
    }


def test_tables_tell_raw_names_and_both_sizes(named: Any, world: World) -> None:
    listed = rows(named, "/table_metadata/", dbId=world.database_id("names") or 0)
    stored = [each for each in world.tables("names") if each.kind == "table"]
    assert {(row["schema_name"], row["table_name"]) for row in listed} == {
        (each.schema_name, each.name) for each in stored
    }
    assert len(stored) == 21
    row = next(each for each in listed if each["table_name"] == "heap")
    table = world.table("names", "heap")
    assert table is not None
    assert (row["table_id"], row["db_name"]) == (table.table_id, "names")
    assert (row["total_data_bytes"], row["total_live_data_bytes"]) == (table.size_bytes, table.live_bytes)
    assert (row["replication_size_bytes"], row["replica_count"]) == (table.replicated_bytes, 3 * table.range_count)
    assert (row["column_count"], row["index_count"]) == (len(table.columns), len(table.indexes) - 1)
    assert (row["store_ids"], "last_update_error" in row) == (list(table.store_ids), False)
    assert row["percent_live_data"] == pytest.approx(table.live_bytes / table.size_bytes, abs=1e-5)


def test_all_tables_of_all_databases_are_listed_by_id(named: Any, world: World) -> None:
    ids = [row["table_id"] for row in rows(named, "/table_metadata/")]
    stored = [each.table_id for name in world.database_names() for each in world.tables(name) if each.kind == "table"]
    assert ids == sorted(stored)


def test_pages_are_numbered_from_one_and_hold_ten(named: Any, world: World) -> None:
    names = len(world.database_names())
    assert named.told("/database_metadata/")["pagination_info"] == {
        "total_results": names,
        "page_size": 10,
        "page_num": 1,
    }
    both = [named.told("/database_metadata/", pageNum=number)["results"] for number in (1, 2)]
    assert [len(page) for page in both] == [10, names - 10]
    assert [*both[0], *both[1]] == rows(named, "/database_metadata/")
    assert named.told("/database_metadata/", pageSize=-4, pageNum=0) == named.told("/database_metadata/")


@pytest.mark.parametrize("path", ["/database_metadata/", "/table_metadata/"])
def test_a_page_past_the_end_has_neither_rows_nor_a_total(named: Any, path: str) -> None:
    assert named.told(path, pageNum=99, pageSize=50) == {
        "results": None,
        "pagination_info": {"total_results": 0, "page_size": 50, "page_num": 99},
    }


def test_a_database_that_is_none_has_no_tables(named: Any, world: World) -> None:
    for database_id in (7_000_000, world.database_id("postgres") or 0):
        assert named.told("/table_metadata/", dbId=database_id)["results"] is None


@pytest.mark.parametrize("name", ["pageSize", "pageNum", "dbId"])
def test_a_number_that_is_none_is_refused(named: Any, name: str) -> None:
    for value in ("x", "1.5", TOO_MANY_DIGITS):
        expected = (400, f"invalid query param value for: {name}")
        assert named.refused(f"/table_metadata/?{name}={value}") == expected


def test_sorting_is_passed_over_unless_its_order_is_none(named: Any) -> None:
    usual = named.told("/table_metadata/")
    assert named.told("/table_metadata/", sortBy="name", sortOrder="desc") == usual
    assert named.refused("/table_metadata/?sortOrder=up") == (400, "invalid sort key value")
    assert named.refused("/database_metadata/?sortOrder=up") == (400, "invalid sort key value")
    assert named.refused("/grants/tables/105/?sortOrder=up") == (400, "invalid sort order")


def test_a_table_by_id_comes_with_its_create_statement(named: Any, world: World) -> None:
    table = world.table("movr", "rides")
    assert table is not None
    body = named.told(f"/table_metadata/{table.table_id}/")
    assert body["metadata"] in rows(named, "/table_metadata/")
    assert body["create_statement"].startswith("CREATE TABLE public.rides (")
    assert SENSITIVE in body["create_statement"]


def test_ids_of_nothing_are_told_apart_by_text(named: Any, world: World) -> None:
    view = next(each.table_id for each in world.tables("movr") if each.kind == "view")
    assert named.refused("/database_metadata/105/") == (404, "database not found")
    for nothing in (104, 2, view, 9_999_999):
        assert named.refused(f"/table_metadata/{nothing}/") == (404, "table not found")
    assert named.refused("/grants/databases/105/") == (404, "database does not exist")
    assert named.refused("/grants/tables/104/") == (404, "table does not exist")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/database_metadata/", "invalid database ID"),
        ("/table_metadata/", "invalid table ID"),
        ("/grants/databases/", "invalid database id"),
        ("/grants/tables/", "invalid table ID"),
    ],
)
def test_an_id_that_is_no_integer_is_refused(named: Any, path: str, text: str) -> None:
    assert named.refused(f"{path}{TOO_MANY_DIGITS}/") == (400, text)


@pytest.mark.parametrize("name", ["Users", "a.b", "in/out", "order_totals"])
def test_grants_by_id_reach_what_names_cannot(named: Any, world: World, name: str) -> None:
    table = world.table("names", name)
    assert table is not None
    body = named.told(f"/grants/tables/{table.table_id}/")
    held = [(row["grantee"], row["privilege"]) for row in body["results"]]
    assert held == [(grant.user, each) for grant in table.grants for each in grant.privileges]
    assert body["pagination_info"] == {"total_results": len(held), "page_size": 0, "page_num": 0}
    assert (body["database_name"], body["schema_name"], body["table_name"]) == ("names", "public", name)


def test_grants_by_id_come_in_pages_when_asked(named: Any, world: World) -> None:
    path = f"/grants/databases/{world.database_id('node-red')}/"
    whole = named.told(path)
    assert whole["name"] == "node-red"
    assert named.told(path, pageSize=2, pageNum=2)["results"] == whole["results"][2:4]
    past = named.told(path, pageSize=50, pageNum=2)
    assert (past["results"], past["pagination_info"]["total_results"]) == ([], 0)


def test_what_is_offline_has_no_grants_to_show(native: Any, world: World) -> None:
    table = world.table("movr", "rides")
    assert table is not None
    cluster = native(world, offline_tables={"movr.public.rides"})
    assert cluster.refused(f"/grants/tables/{table.table_id}/") == INTERNAL
    assert cluster.told(f"/table_metadata/{table.table_id}/")


def test_metadata_leaves_out_databases_one_may_not_connect_to(native: Any, world: World) -> None:
    cluster = native(world, without_connect={"movr"}, hidden_databases={"bank"}, hidden_tables={"names.public.users"})
    left = set(world.database_names()) - {"movr", "bank"}
    assert {row["db_name"] for row in rows(cluster, "/database_metadata/")} == left
    assert {row["db_name"] for row in rows(cluster, "/table_metadata/")} == left - {"defaultdb", "postgres"}
    assert "movr" in cluster.told("/databases/")["databases"]
    assert cluster.refused("/database_metadata/104/") == (404, "database not found")
    assert cluster.refused("/table_metadata/105/") == (404, "table not found")
    assert cluster.told(f"/grants/databases/{world.database_id('bank')}/")["results"] == []


def test_a_hidden_table_has_its_numbers_but_no_statement_and_no_grants(native: Any, world: World) -> None:
    cluster = native(world, hidden_tables={"names.public.users"})
    table = world.table_in("names", "public", "users")
    assert table is not None
    body = cluster.told(f"/table_metadata/{table.table_id}/")
    assert body["metadata"]["table_name"] == "users"
    assert body["create_statement"].startswith("Unable to retrieve create statement for ")
    assert cluster.told(f"/grants/tables/{table.table_id}/")["results"] == []


def test_the_job_is_not_there_for_those_who_may_connect_nowhere(native: Any) -> None:
    world = World(1)
    cluster = native(world, without_connect=set(world.database_names()))
    assert cluster.refused(JOB) == cluster.refused(JOB, "POST") == (404, "Not Found")


def test_a_warm_cache_is_as_old_as_its_last_run(native: Any, clock: Clock) -> None:
    cluster = native(app={"clock": clock}, stats_age_seconds=3 * 86_400)
    assert cluster.told(JOB) == {
        "current_status": "NOT_RUNNING",
        "progress": 1,
        "last_start_time": "2026-02-26T11:59:29.1Z",
        "last_completed_time": "2026-02-26T12:00:00.1Z",
        "last_updated_time": "2026-02-26T12:00:00.1Z",
        "data_valid_duration": 1_200_000_000_000,
        "automatic_updates_enabled": False,
    }
    times = {datetime.fromisoformat(row["last_updated"]) for row in rows(cluster, "/table_metadata/")}
    assert max(times) <= NOON - timedelta(days=3)
    assert min(times) > NOON - timedelta(days=3, seconds=1)
    assert len(times) > 10


def test_a_cold_cache_holds_no_table_and_no_size(native: Any) -> None:
    cluster = native(cold_cache=True)
    for row in rows(cluster, "/database_metadata/"):
        assert (row["size_bytes"], row["table_count"], row["store_ids"], row["last_updated"]) == (0, 0, None, None)
    assert cluster.told("/table_metadata/")["results"] is None
    assert cluster.refused("/table_metadata/105/") == (404, "table not found")
    status = cluster.told(JOB)
    assert (status["last_start_time"], status["last_completed_time"], status["last_updated_time"]) == (None,) * 3
    assert len(cluster.told("/databases/movr/tables/")["table_names"]) == 12


def test_the_job_runs_for_a_while_and_then_the_cache_is_warm(native: Any, clock: Clock) -> None:
    cluster = native(app={"clock": clock}, cold_cache=True, job_seconds=10)
    assert triggered(cluster) == TRIGGERED
    clock.now += timedelta(seconds=4)
    running = cluster.told(JOB)
    assert (running["current_status"], running["progress"], running["last_completed_time"]) == ("RUNNING", 0.4, None)
    assert triggered(cluster) == {"job_triggered": False, "message": "Job is already running"}
    assert cluster.told("/table_metadata/")["results"] is None
    clock.now += timedelta(seconds=6)
    ended = cluster.told(JOB)
    assert (ended["current_status"], ended["last_completed_time"]) == ("NOT_RUNNING", "2026-03-01T12:00:10.1Z")
    assert len(rows(cluster, "/table_metadata/")) > 20


def test_only_if_stale_spares_a_cache_that_is_fresh(native: Any, clock: Clock) -> None:
    cluster = native(app={"clock": clock}, stats_age_seconds=19 * 60)
    fresh = {"job_triggered": False, "message": "Not enough time has elapsed since last job run"}
    assert triggered(cluster, "?onlyIfStale") == triggered(cluster, "?onlyIfStale=no") == fresh
    clock.now += timedelta(minutes=1)
    assert triggered(cluster, "?onlyIfStale=true") == TRIGGERED


def test_without_only_if_stale_a_fresh_cache_is_filled_again(native: Any) -> None:
    assert triggered(native(), "?onlyIfStale=false") == triggered(native()) == TRIGGERED
    assert triggered(native(cold_cache=True), "?onlyIfStale") == TRIGGERED


def test_a_job_that_no_node_takes_never_starts(native: Any) -> None:
    cluster = native(cold_cache=True, job_unclaimed=True)
    assert triggered(cluster) == {"job_triggered": False, "message": "Job is unclaimed"}
    assert cluster.told(JOB)["current_status"] == "NOT_RUNNING"


def test_a_row_that_could_not_be_updated_is_older_and_says_so(native: Any, world: World, clock: Clock) -> None:
    cluster = native(world, app={"clock": clock}, failing_stats={"movr.public.rides"})
    failed = [row for row in rows(cluster, "/table_metadata/") if "last_update_error" in row]
    assert [row["table_name"] for row in failed] == ["rides"]
    assert datetime.fromisoformat(failed[0]["last_updated"]) < NOON - timedelta(days=1)
    assert failed[0]["total_data_bytes"] > 0
