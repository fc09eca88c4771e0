from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.native import Generation, NativeSandbox, Quirks
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World

Serve = Callable[[ClusterApp], httpx.Client]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Puts a sandbox on a port; answers with a client of it, whose base URL ends in `/api/v2`."""
    with ExitStack() as running:

        def start(app: ClusterApp) -> httpx.Client:
            server = running.enter_context(SandboxServer(app))
            client = httpx.Client(base_url=f"{server.url}/api/v2", trust_env=False, verify=False)
            return running.enter_context(client)

        yield start


@pytest.fixture(scope="module")
def hostile_world() -> World:
    return World(hostile_names=True)


@pytest.fixture(scope="module")
def client(hostile_world: World, serve: Serve) -> httpx.Client:
    """A client, logged in, of a sandbox that holds every kind of name."""
    client = serve(Sandbox(hostile_world))
    answer = client.post("/login/", data={"username": "demo", "password": "demo"})
    client.headers["X-Cockroach-API-Session"] = answer.json()["session"]
    return client


@dataclass(frozen=True)
class Native:
    """A native sandbox and a client of it."""

    app: NativeSandbox
    client: httpx.Client

    def get(self, path: str, **query: str | int) -> httpx.Response:
        return self.client.get(path, params=query or None)

    def told(self, path: str, **query: str | int) -> Any:
        """The JSON of an answer that has to be 200."""
        answer = self.get(path, **query)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
        return answer.json()

    def refused(self, path: str, method: str = "GET", **request: Any) -> tuple[int, str]:
        """Status and text of an answer that has to be one line of plain text."""
        answer = self.client.request(method, path, **request)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.text.endswith("\n")
        return answer.status_code, answer.text[:-1]

    def raw(self, target: str) -> tuple[int, str | None]:
        """Status and location for a target that goes out as it is; client libraries tidy paths up."""
        connection = http.client.HTTPConnection(self.client.base_url.host, self.client.base_url.port or 80)
        connection.request("GET", target, headers=dict(self.client.headers))
        answer = connection.getresponse()
        connection.close()
        return answer.status, answer.getheader("location")


StartNative = Callable[..., Native]


@pytest.fixture(scope="module")
def native(serve: Serve) -> StartNative:
    """Starts a native sandbox: `native(World(), cold_cache=True)`. The client has a session."""

    def start(
        world: World | None = None, *, generation: Generation = "v25", app: dict[str, Any] | None = None, **quirks: Any
    ) -> Native:
        sandbox = NativeSandbox(world or World(), generation=generation, quirks=Quirks(**quirks), **(app or {}))
        client = serve(sandbox)
        client.headers["X-Cockroach-API-Session"] = sandbox.open_session()
        return Native(sandbox, client)

    return start


@pytest.fixture(scope="module")
def named(native: StartNative) -> Native:
    """A current cluster with every kind of name and a view in each database."""
    return native(World(native_names=True, views=1))
