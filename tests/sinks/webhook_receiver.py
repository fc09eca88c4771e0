"""A receiver of webhooks over real HTTP, which verifies every signature with the reference library."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standardwebhooks

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass
class Receiver:
    """Answers with `answers` in turn, then 204; keeps what it was sent, with its signature verified."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        self.messages.append(standardwebhooks.Webhook(SECRET).verify(body, headers))
        self.ids.append(headers["webhook-id"])
        self.bodies.append(body)
        return self.answers.pop(0) if self.answers else (204, {})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.messages if each["type"] == kind]


@contextmanager
def receiving(taken: Receiver) -> Iterator[Receiver]:
    """Serves the receiver on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = taken.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    taken.url = f"http://127.0.0.1:{server.server_port}/hook?key=canary"
    try:
        yield taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
