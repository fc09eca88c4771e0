from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World

Serve = Callable[[Sandbox], httpx.Client]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Puts a sandbox on a port; answers with a client of it, whose base URL ends in `/api/v2`."""
    with ExitStack() as running:

        def start(app: Sandbox) -> httpx.Client:
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
