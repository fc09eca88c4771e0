from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from crdbexport.errors import ConfigError
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Delay, Faults, Rule
from crdbexport.sandbox.server import SandboxServer, serve_forever
from crdbexport.sandbox.world import World

FOREGROUND = """
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.server import serve_forever
from crdbexport.sandbox.world import World
serve_forever(Sandbox(World()), "127.0.0.1", 0, announce=lambda url: print(url, flush=True))
print("stopped")
"""


def connect(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, verify=False)


def test_servers_take_free_ports_of_their_own() -> None:
    with SandboxServer(Sandbox(World())) as one, SandboxServer(Sandbox(World())) as other:
        assert one.url != other.url
        for url in (one.url, other.url):
            with connect(url) as client:
                assert client.get("/api/v2/health").status_code == 200


def test_leaving_the_context_closes_the_port_and_the_thread() -> None:
    before = threading.active_count()
    with SandboxServer(Sandbox(World())) as server, connect(server.url) as client:
        client.get("/api/v2/health")
        assert threading.active_count() == before + 1
        port = client.base_url.port
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=1)


def test_an_idle_client_does_not_hold_the_server_up() -> None:
    with connect("http://unused") as client:
        with SandboxServer(Sandbox(World())) as server:
            client.get(f"{server.url}/api/v2/health")
            stopping = time.perf_counter()
        assert time.perf_counter() - stopping < 0.5


def test_a_request_that_waits_is_cut_off_when_the_server_stops() -> None:
    rule = Rule(".*", Delay(60))
    app = Sandbox(World(), faults=Faults(rules=[rule]))
    broken: list[Exception] = []

    def ask(url: str) -> None:
        with connect(url) as client:
            try:
                client.get("/api/v2/health")
            except httpx.TransportError as error:
                broken.append(error)

    with SandboxServer(app) as server:
        asking = threading.Thread(target=ask, args=(server.url,))
        asking.start()
        while not rule.fired:
            time.sleep(0.002)
        stopping = time.perf_counter()
    asking.join(5)
    assert time.perf_counter() - stopping < 1
    assert len(broken) == 1


def test_a_taken_port_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use on 127.0.0.1; choose another with --port"):
            serve_forever(Sandbox(World()), "127.0.0.1", port)


def test_a_number_that_is_no_port_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="70000 is not a port"):
        serve_forever(Sandbox(World()), "127.0.0.1", 70_000)


def test_an_address_of_another_machine_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        serve_forever(Sandbox(World()), "192.0.2.1", 0)


@pytest.mark.slow
def test_in_the_foreground_it_serves_until_interrupted() -> None:
    command = [sys.executable, "-W", "error", "-c", FOREGROUND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with connect(url) as client:
            assert client.get("/api/v2/health").status_code == 200
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")
