"""A bucket on a real S3 server of this machine, and a proxy before it that fails requests of a chosen kind."""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pyarrow as pa
import pytest
from crdbexport_object_store import ObjectStoreSink
from crdbexport_object_store.conformance import rows_of
from crdbexport_object_store.options import ObjectStoreConfig

from crdbexport import Batch, Receipt, Run
from crdbexport.config import Secret
from crdbexport.sinks.manifest import Manifest, decode_manifest
from crdbexport.testing.feed import outcome_of
from crdbexport.testing.samples import some_of_everything

# S3 itself takes no part of less than 5 MiB; so the tests need no large files.
PART_BYTES = 1_024
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
Act = Callable[[], None]
Batches = Sequence[tuple[str, pa.RecordBatch]]


class Bucket:
    """A bucket of its own, looked at without obstore."""

    def __init__(self, client: Any, endpoint: str, name: str) -> None:
        self._client, self.endpoint, self.name = client, endpoint, name
        client.create_bucket(Bucket=name)

    def config(self, **changes: Any) -> ObjectStoreConfig:
        """The options of a sink that publishes here."""
        settings: dict[str, Any] = {
            "url": f"s3://{self.name}/lake",
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "allow_http": True,
            "access_key_id": Secret("exporter"),
            "secret_access_key": Secret("s3cret-of-the-bucket"),
            "part_bytes": PART_BYTES,
            "retries": 2,
            "request_timeout_seconds": 5.0,
        }
        return ObjectStoreConfig(**{**settings, **changes})

    def objects(self) -> dict[str, bytes]:
        """Every object below the prefix, by its path."""
        listed = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {each["Key"].removeprefix("lake/"): self._read(each["Key"]) for each in listed}

    def manifests(self) -> list[Manifest]:
        return [decode_manifest(data) for path, data in self.objects().items() if path.startswith("_manifests/")]

    def rows(self) -> dict[str, list[Mapping[str, Any]]]:
        """What a reader of the manifests sees."""
        objects = self.objects()
        found: dict[str, list[Mapping[str, Any]]] = {}
        for file in (file for manifest in self.manifests() for file in manifest.files):
            found.setdefault(file.stream, []).extend(rows_of(file.path, objects[file.path]))
        return found

    def unfinished_uploads(self) -> int:
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))

    def put(self, path: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=f"lake/{path}", Body=data)

    def assert_holds_only_what_manifests_name(self) -> None:
        named = {file.path for manifest in self.manifests() for file in manifest.files}
        found = self.objects()
        assert {path for path in found if not path.startswith("_manifests/")} == named
        for file in (file for manifest in self.manifests() for file in manifest.files):
            assert len(found[file.path]) == file.size_bytes

    def _read(self, key: str) -> bytes:
        with self._client.get_object(Bucket=self.name, Key=key)["Body"] as body:
            data: bytes = body.read()
        return data


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server in a process of its own, until the context ends; answers its address."""
    environment = {**os.environ, "S3_UPLOAD_PART_MIN_SIZE": "16"}
    pipes: dict[str, int] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=environment, text=True, **pipes) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3_client(s3: str) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="reader", aws_secret_access_key="reader"
    )
    yield client
    client.close()


NAMES = (f"bucket-{number}" for number in itertools.count())


@pytest.fixture
def new_bucket(s3: str, s3_client: Any) -> Callable[[], Bucket]:
    return lambda: Bucket(s3_client, s3, next(NAMES))


@pytest.fixture
def bucket(new_bucket: Callable[[], Bucket]) -> Bucket:
    return new_bucket()


class Proxy:
    """Passes requests on to the server, but for those that a test has chosen.

    `fail(operation, how, times)` fails the next requests of an operation: `503`, `500`, `429`, `403`, `reset` before
    the server has heard of it, or `lost` after. `before(operation, act)` acts before one is passed on.
    """

    def __init__(self, endpoint: str) -> None:
        self._upstream = endpoint.removeprefix("http://")
        self._failing: dict[str, tuple[str, int]] = {}
        self._acts: dict[str, Act] = {}
        self._lock = threading.Lock()
        self.url = ""
        self.seen: list[str] = []
        self.withheld = ""  # A header that the server does not get to see.
        self.failed = 0

    def fail(self, operation: str, how: str, times: int) -> None:
        self._failing[operation] = (how, times)

    def mend(self) -> None:
        self._failing.clear()

    def before(self, operation: str, act: Act) -> None:
        self._acts[operation] = act

    def fault_for(self, operation: str) -> str:
        with self._lock:
            self.seen.append(operation)
            act = self._acts.pop(operation, None)
        if act is not None:
            act()
        with self._lock:
            how, times = self._failing.get(operation, ("", 0))
            if times == 0:
                return ""
            self._failing[operation] = (how, times - 1)
            self.failed += 1
            return how

    def passed_on(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._upstream, timeout=10)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() != self.withheld}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def operation_of(method: str, target: str) -> str:
    """What a request is for."""
    path, _, query = target.partition("?")
    if method == "POST":
        return {"uploads": "create", "delete": "delete"}.get(query.split("=")[0], "complete")
    if method != "PUT":
        return {"GET": "list" if "list-type" in query else "get"}.get(method, method.lower())
    if "partNumber" in query:
        return "part"
    return "manifest" if "/_manifests/" in path else "probe" if "/_staging/" in path else "put"


CODES = {"503": "SlowDown", "429": "TooManyRequests", "500": "InternalError", "403": "AccessDenied"}


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_for(operation_of(self.command, self.path))
            if fault == "reset":
                return self.reset()
            if fault in CODES:
                return self.answer(int(fault), [], f"<Error><Code>{CODES[fault]}</Code></Error>".encode())
            answer = proxy.passed_on(self.command, self.path, self.headers, body)
            return self.reset() if fault == "lost" else self.answer(*answer)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 (the names that the base class calls)

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            own = {"content-length", "connection", "transfer-encoding"}
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
            for name, value in headers:
                if name.lower() not in own:
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                """It was reset."""

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients may hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def proxy(s3: str) -> Iterator[Proxy]:
    with proxy_before(s3) as running:
        yield running


Deliver = Callable[..., Receipt]


@pytest.fixture
def deliver() -> Deliver:
    """Delivers a run as a lane does; what a failed one has staged is removed."""

    def delivered(config: ObjectStoreConfig, run: Run, batches: Batches | None = None, **outcome: Any) -> Receipt:
        batches = some_of_everything(run) if batches is None else batches
        sink = ObjectStoreSink(config)
        try:
            sink.preflight(run)
            sink.open(run)
            for number, (stream, data) in enumerate(batches):
                sink.write(Batch(stream, number, data))
            return sink.commit(run, replace(outcome_of(run, batches), **outcome))
        except BaseException:
            sink.abort()
            raise

    return delivered
