"""A small receiver of webhooks that does what receivers should: verify, drop repeats, and wait for whole runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

TAKEN, UNPROVEN = 204, 401
Rows = dict[str, list[dict[str, Any]]]


class Receiver:
    """Keeps the records of every run; readers see those of completed runs."""

    def __init__(self, secret: str) -> None:
        self.url = ""
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._seen: set[str] = set()
        self._records: dict[tuple[str, str], Rows] = defaultdict(lambda: defaultdict(list))
        self._completed: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Take one message; answers the status."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        if f"v1,{digest}" not in headers["webhook-signature"].split():
            return UNPROVEN
        with self._lock:
            if headers["webhook-id"] not in self._seen:
                self._seen.add(headers["webhook-id"])
                self._note(msgspec.json.decode(body))
        return TAKEN

    def rows(self) -> Rows:
        """The records of all completed runs."""
        with self._lock:
            found: Rows = defaultdict(list)
            for run in self._completed:
                for stream, rows in self._records[run].items():
                    found[stream] += rows
            return found

    def _note(self, message: dict[str, Any]) -> None:
        data = message["data"]
        run = (data["cluster"], data["run_id"])
        if message["type"] == "records.batch":
            self._records[run][data["stream"]] += data["records"]
        elif message["type"] == "run.completed":
            self._completed.add(run)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, as one does that is killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def receiving(secret: str) -> Iterator[Receiver]:
    """A receiver on a loopback port for as long as the context lasts."""
    receiver = Receiver(secret)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    server = _Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
