from __future__ import annotations

import asyncio
import base64
import http.client
from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World

Serve = Callable[[Sandbox], httpx.Client]

SESSION_HEADER = "X-Cockroach-API-Session"
UNADDRESSABLE = {".", ".."}


def log_in(client: httpx.Client) -> str:
    session: str = client.post("/login/", data={"username": "demo", "password": "demo"}).json()["session"]
    client.headers[SESSION_HEADER] = session
    return session


def encoded(name: str) -> str:
    return quote(name, safe="")


def test_login_answers_with_a_session(client: httpx.Client) -> None:
    answer = client.post("/login/", data={"username": "demo", "password": "demo"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"session"}
    assert len(base64.b64decode(answer.json()["session"], validate=True)) == 28


@pytest.mark.parametrize(
    "form",
    [
        {"username": "demo", "password": "wrong"},
        {"username": "root", "password": "demo"},
        {"username": "demo"},
        {},
    ],
)
def test_wrong_credentials_are_refused(client: httpx.Client, form: dict[str, str]) -> None:
    answer = client.post("/login/", data=form)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": "unauthorized",
        "message": "the provided credentials did not match any account on the server",
    }


def test_a_password_of_any_characters_logs_in(serve: Serve) -> None:
    password = "p&w=d +%é\n🚀"
    client = serve(Sandbox(World(), username="å", password=password))
    assert client.post("/login/", data={"username": "å", "password": password}).status_code == 200


@pytest.mark.parametrize("slash", ["", "/"])
def test_databases_are_listed_by_name_and_id(client: httpx.Client, hostile_world: World, slash: str) -> None:
    answer = client.get(f"/databases{slash}")
    assert answer.status_code == 200
    listed = answer.json()["databases"]
    assert listed[0] == {"name": "movr", "id": "104"}
    assert [database["name"] for database in listed] == hostile_world.database_names()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_database_tells_id_size_tables_and_stores(client: httpx.Client, slash: str) -> None:
    body = client.get(f"/databases/bank{slash}").json()
    assert list(body) == ["database_name", "descriptor_id", "size_bytes", "table_count", "store_ids"]
    assert body["database_name"] == "bank"
    assert int(body["descriptor_id"]) > 104
    assert type(body["size_bytes"]) is int
    assert body["table_count"] == 12
    assert len(body["store_ids"]) == 3


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_databases_grants_are_listed(client: httpx.Client, slash: str) -> None:
    body = client.get(f"/databases/bank/grants{slash}").json()
    assert body.keys() == {"grants"}
    assert {"user": "admin", "privileges": ["ALL"]} in body["grants"]
    assert {"user": "app_user", "privileges": ["CONNECT", "CREATE"]} in body["grants"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_databases_tables_are_listed(client: httpx.Client, slash: str) -> None:
    body = client.get(f"/databases/bank/tables{slash}").json()
    assert body.keys() == {"tables"}
    assert len(body["tables"]) == 12
    first = body["tables"][0]
    assert list(first) == ["name", "schema_name", "table_id", "size_bytes"]
    assert (first["name"], first["schema_name"]) == ("accounts", "public")
    assert type(first["table_id"]) is str
    assert type(first["size_bytes"]) is int
    assert client.get("/databases/defaultdb/tables").json() == {"tables": []}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_table_tells_columns_indexes_and_grants(client: httpx.Client, slash: str) -> None:
    body = client.get(f"/databases/movr/tables/users{slash}").json()
    assert list(body) == [
        "table_name",
        "table_id",
        "database_name",
        "schema_name",
        "columns",
        "indexes",
        "grants",
        "range_count",
        "size_bytes",
    ]
    assert (body["table_name"], body["table_id"], body["database_name"]) == ("users", "105", "movr")
    assert body["columns"][:2] == [
        {"name": "city", "type": "STRING", "nullable": False},
        {"name": "id", "type": "UUID", "nullable": False},
    ]
    assert body["indexes"][0] == {"name": "users_pkey", "columns": ["city", "id"], "unique": True}
    assert {"user": "admin", "privileges": ["ALL"]} in body["grants"]
    assert body["range_count"] >= 1
    assert type(body["size_bytes"]) is int


def test_health_needs_no_session(client: httpx.Client) -> None:
    answer = client.get("/health", headers={SESSION_HEADER: ""})
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize("path", ["/databases", "/databases/movr/", "/databases/movr/tables/users", "/databases/no"])
@pytest.mark.parametrize("session", ["", "bm90IGEgc2Vzc2lvbg=="])
def test_without_a_valid_session_nothing_is_told(client: httpx.Client, path: str, session: str) -> None:
    answer = client.get(path, headers={SESSION_HEADER: session})
    assert answer.status_code == 401
    assert answer.json() == {"error": "unauthorized", "message": "valid session required"}


def test_a_cluster_that_requires_no_login_answers_without_a_session(serve: Serve) -> None:
    client = serve(Sandbox(World(), require_login=False))
    assert client.get("/databases/movr").status_code == 200


@pytest.mark.parametrize("rest", ["", "/", "/grants", "/tables", "/tables/users"])
def test_an_unknown_database_is_not_found(client: httpx.Client, rest: str) -> None:
    answer = client.get(f"/databases/nonexistent{rest}")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not found", "message": 'database "nonexistent" does not exist'}


def test_an_unknown_table_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/databases/movr/tables/nonexistent/")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not found", "message": 'table "nonexistent" does not exist'}


@pytest.mark.parametrize("path", ["", "/", "/nodes", "/databases/movr/nope", "/databases/movr/tables/users/columns"])
def test_an_unknown_path_is_not_found(client: httpx.Client, path: str) -> None:
    answer = client.get(str(client.base_url).rstrip("/") + path)
    assert (answer.status_code, answer.json()["error"]) == (404, "not found")


def test_another_method_is_refused(client: httpx.Client) -> None:
    answer = client.get("/login/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.delete("/databases/movr").status_code == 405


def test_logout_ends_the_session_and_no_other(serve: Serve) -> None:
    app = Sandbox(World())
    client = serve(app)
    other = log_in(client)
    session = log_in(client)
    answer = client.post("/logout/")
    assert (answer.status_code, answer.json()) == (200, {"logged_out": True})
    assert client.get("/databases", headers={SESSION_HEADER: session}).status_code == 401
    assert client.post("/logout/", headers={SESSION_HEADER: session}).status_code == 401
    assert client.get("/databases", headers={SESSION_HEADER: other}).status_code == 200
    assert (app.logins, app.logouts) == (2, 1)


def test_revoking_ends_every_session(serve: Serve) -> None:
    app = Sandbox(World())
    client = serve(app)
    log_in(client)
    app.revoke_sessions()
    assert client.get("/databases").status_code == 401


def test_every_hostile_name_that_a_url_can_carry_round_trips(client: httpx.Client, hostile_world: World) -> None:
    seen = 0
    for name in set(hostile_world.database_names()) - UNADDRESSABLE:
        path = f"/databases/{encoded(name)}"
        assert client.get(path).json()["database_name"] == name
        for table in client.get(f"{path}/tables/").json()["tables"]:
            if table["name"] in UNADDRESSABLE:
                continue
            details = client.get(f"{path}/tables/{encoded(table['name'])}/").json()
            assert (details["database_name"], details["table_name"]) == (name, table["name"])
            seen += table["schema_name"] == "audit"
    assert seen > 8


@pytest.mark.parametrize("name", [".", "..", "%2E", "%2e%2E"])
def test_dots_are_listed_but_no_url_carries_them(client: httpx.Client, name: str) -> None:
    listed = {database["name"] for database in client.get("/databases").json()["databases"]}
    assert listed > UNADDRESSABLE
    # A plain connection: the client library would resolve the dots before it sends them.
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 80)
    connection.request("GET", f"/api/v2/databases/{name}/tables")
    answer = connection.getresponse()
    expected = "/api/v2/tables" if name in {"..", "%2e%2E"} else "/api/v2/databases/tables"
    assert (answer.status, answer.getheader("location")) == (301, expected)
    connection.close()


def test_of_two_tables_of_one_name_the_url_answers_for_one(client: httpx.Client) -> None:
    listed = client.get("/databases/twins/tables").json()["tables"]
    ids = [table["table_id"] for table in listed if table["name"] == "orders"]
    assert len(set(ids)) == 2
    assert client.get("/databases/twins/tables/orders").json()["table_id"] == ids[0]


def test_a_large_world_serves_a_table_at_once(serve: Serve) -> None:
    client = serve(Sandbox(World(200, 500)))
    log_in(client)
    answer = client.get("/databases/movr_198/tables/rides_0494")
    assert answer.json()["table_name"] == "rides_0494"
    assert answer.elapsed.total_seconds() < 0.1


def test_requests_are_counted_by_raw_path(serve: Serve) -> None:
    app = Sandbox(World(hostile_names=True))
    client = serve(app)
    log_in(client)
    for _ in range(3):
        client.get("/databases/a%2Fb/grants?page=1")
    client.get("/databases")
    assert app.hits == {"/api/v2/login/": 1, "/api/v2/databases/a%2Fb/grants": 3, "/api/v2/databases": 1}


def test_the_most_requests_at_once_are_counted() -> None:
    app = Sandbox(World(), require_login=False, latency_seconds=0.05)

    async def ask(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
            return await asyncio.gather(*(client.get("/api/v2/databases") for _ in range(5)))

    with SandboxServer(app) as server:
        answers = asyncio.run(ask(server.url))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.elapsed.total_seconds() >= 0.05 for answer in answers)
    assert app.max_in_flight == 5
