from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

from crdbexport.sandbox.faults import Action, Disconnect, Expire, Faults, Rule, Status, Truncate
from crdbexport.sandbox.world import World

NO_ROUTE = (404, "404 page not found")
NO_SESSION = (401, "the provided authentication session could not be validated")
INTERNAL = (500, "An internal server error has occurred. Please check your CockroachDB logs for more details.")
NOT_ON_TENANTS = (501, "Not Available on Tenants")

BY_NAME = ("/databases/", "/databases/movr/", "/databases/movr/grants/", "/databases/movr/tables/")
TABLE = "/databases/movr/tables/public.rides/"
METADATA = ("/database_metadata/", "/database_metadata/104/", "/table_metadata/", "/table_metadata/105/")
BY_ID = (*METADATA, "/table_metadata/updatejob/", "/grants/databases/104/", "/grants/tables/105/")


@pytest.mark.parametrize("path", [*BY_NAME, TABLE, *BY_ID, "/login/", "/logout/", "/health/"])
def test_without_its_slash_no_path_is_a_route_session_or_not(native: Any, named: Any, path: str) -> None:
    assert named.refused(path.rstrip("/")) == NO_ROUTE
    assert named.refused(path.rstrip("/"), headers={"X-Cockroach-API-Session": ""}) == NO_ROUTE


@pytest.mark.parametrize("path", ["/", "/nodes", "/databases/movr/nope/", "/v1/databases/", "/table_metadata/x/"])
def test_a_path_that_is_no_route_is_not_found(named: Any, path: str) -> None:
    assert named.refused(path) == NO_ROUTE


def test_another_base_path_is_not_found(named: Any) -> None:
    origin = str(named.client.base_url).removesuffix("/api/v2/")
    assert named.refused(f"{origin}/databases/") == NO_ROUTE
    assert named.refused(f"{origin}/api/v2x/databases/") == NO_ROUTE


@pytest.mark.parametrize("name", ["node-red", "data%20lake", "gr%C3%B6%C3%9Fe", "cost%24centre", "a%22b", "x%2Fy"])
def test_names_beyond_ascii_words_and_dots_are_no_route(named: Any, name: str) -> None:
    assert named.refused(f"/databases/{name}/") == NO_ROUTE
    assert named.refused(f"/databases/movr/tables/{name}/") == NO_ROUTE


def test_paths_are_decoded_before_they_are_matched(named: Any) -> None:
    plain = named.told("/databases/movr/grants/")
    assert named.told("/databases/%6dovr/grants/") == plain
    assert named.raw("/api/v2/databases/movr%2Fgrants/")[0] == 200


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/api/v2", "/api/v2/"),
        ("/api/v2/databases//", "/api/v2/databases/"),
        ("/api/v2//databases/movr/?limit=2", "/api/v2/databases/movr/?limit=2"),
        ("/api/v2/databases/./tables/", "/api/v2/databases/tables/"),
        ("/api/v2/databases/%2e%2E/", "/api/v2/"),
        ("/api/v2/databases/%2Fmovr/", "/api/v2/databases/movr/"),
    ],
)
def test_unclean_paths_are_redirected_to_clean_ones(named: Any, target: str, location: str) -> None:
    assert named.raw(target) == (301, location)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_routes_by_name_take_any_method(named: Any, method: str) -> None:
    for path in (*BY_NAME, TABLE):
        assert named.client.request(method, path).json() == named.told(path)
    assert named.client.head(TABLE).status_code == 200


@pytest.mark.parametrize("path", BY_ID)
def test_the_routes_by_id_take_none_but_their_own(named: Any, path: str) -> None:
    assert named.refused(path, "DELETE") == (405, "Method Not Allowed")
    assert named.refused(path, "DELETE", headers={"X-Cockroach-API-Session": ""})[0] == 401


@pytest.mark.parametrize("path", BY_ID)
def test_v22_has_no_routes_by_id(native: Any, path: str) -> None:
    assert native(generation="v22").refused(path) == NO_ROUTE


@pytest.mark.parametrize("path", [*BY_NAME, TABLE])
def test_a_server_that_is_too_old_has_no_databases(native: Any, path: str) -> None:
    old = native(too_old=True)
    assert old.refused(path) == NO_ROUTE
    assert old.told("/health/") == {}
    assert old.client.post("/login/", data={"username": "demo", "password": "demo"}).status_code == 200


def test_a_tenant_answers_by_id_alone(native: Any) -> None:
    tenant = native(tenant=True)
    nobody = {"X-Cockroach-API-Session": ""}
    for path in (*BY_NAME, TABLE, "/health/", "/login/", "/logout/"):
        assert tenant.refused(path, headers=nobody) == NOT_ON_TENANTS
    for path in BY_ID:
        assert tenant.told(path)
        assert tenant.refused(path, headers=nobody)[0] == 401


def test_an_https_server_redirects_all_but_its_health(native: Any) -> None:
    secure = native(https_only=True)
    authority = secure.client.base_url.netloc.decode()
    assert secure.raw("/api/v2/login/?a=b") == (307, f"https://{authority}/api/v2/login/?a=b")
    assert secure.raw("/api/v2/health/")[0] == 307
    assert secure.raw("/health") == (200, None)
    assert secure.app.logins == 0


def test_health_tells_of_readiness_when_asked(native: Any) -> None:
    starting = native(not_ready=True)
    assert starting.told("/health/") == starting.told("/health/", ready="false") == {}
    assert starting.refused("/health/?ready=true") == INTERNAL
    assert starting.refused("/health/?ready=foo") == (400, "invalid ready value")


def test_answers_are_compressed_where_that_is_accepted(named: Any) -> None:
    packed = named.client.get(TABLE, headers={"Accept-Encoding": "gzip"})
    plain = named.client.get(TABLE, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.json() == plain.json()
    assert packed.headers["cache-control"] == plain.headers["cache-control"] == "no-cache"


def test_injected_errors_are_worded_as_real_ones(native: Any) -> None:
    path = "/api/v2/databases/movr/tables/"
    codes = (500, 404, 401, 503, 429)
    rules = [Rule(path, Status(code, {"Retry-After": "0"}), hits={hit}) for hit, code in enumerate(codes, 1)]
    faulty = native(app={"faults": Faults(rules=rules)})
    assert [faulty.refused("/databases/movr/tables/") for _ in codes] == [
        INTERNAL,
        (404, "database or table not found"),
        NO_SESSION,
        (503, "Service Unavailable"),
        (429, "Too Many Requests"),
    ]
    assert all(rule.fired for rule in rules)
    assert faulty.told("/databases/movr/tables/")


def test_sessions_expire_and_answers_break_off_as_in_the_documented_form(native: Any) -> None:
    path = "/api/v2/databases/"
    actions: tuple[Action, ...] = (Truncate(4), Disconnect(), Expire())
    faults = Faults(rules=[Rule(path, action, hits={hit}) for hit, action in enumerate(actions, 1)])
    faulty = native(app={"faults": faults})
    assert faulty.get("/databases/").content == b'{"da'
    with pytest.raises(httpx.RemoteProtocolError):
        faulty.get("/databases/")
    assert [faulty.refused("/databases/") for _ in range(2)] == [NO_SESSION] * 2
    assert faulty.app.hits[path] == 4


def test_a_compressed_answer_is_cut_before_it_is_packed(native: Any) -> None:
    faulty = native(World(), app={"faults": Faults(rules=[Rule(".*", Truncate(7))])})
    with faulty.client.stream("GET", "/databases/", headers={"Accept-Encoding": "gzip"}) as answer:
        assert gzip.decompress(b"".join(answer.iter_raw())) == b'{"datab'
