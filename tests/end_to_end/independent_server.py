"""A second server of the documented Cluster API v2, on the standard library alone.

It shares no line with the package under test nor with its sandbox: a mistake that one of them makes on both ends of
the wire shows here.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote

Answer = tuple[int, Any]

UNAUTHORIZED: Answer = (401, {"error": "unauthorized", "message": "valid session required"})


def _missing(what: str, name: str) -> Answer:
    return 404, {"error": "not found", "message": f'{what} "{name}" does not exist'}


class IndependentServer:
    """Serves a world of wire objects on loopback for as long as the context lasts.

    `logins` and `logouts` count those that succeeded, `tokens` holds every session that was handed out, and `hits`
    counts requests by raw path.
    """

    def __init__(self, world: Mapping[str, Any], username: str, password: str) -> None:
        self.hits: Counter[str] = Counter()
        self.logins = self.logouts = 0
        self.tokens: list[str] = []
        self._world = world
        self._account = {"username": [username], "password": [password]}
        self._sessions: set[str] = set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, session: str | None, body: bytes) -> Answer:
        with self._lock:
            self.hits[path] += 1
            segments = [unquote(each) for each in path.rstrip("/").split("/")]
            if segments[:3] != ["", "api", "v2"]:
                return 404, {"error": "not found"}
            return self._routed(method, segments[3:], session, body)

    def _routed(self, method: str, segments: list[str], session: str | None, body: bytes) -> Answer:
        if (method, segments) == ("GET", ["health"]):
            return 200, {}
        if (method, segments) == ("POST", ["login"]):
            return self._login(body)
        if session not in self._sessions:
            return UNAUTHORIZED
        if (method, segments) == ("POST", ["logout"]):
            self._sessions.discard(session)
            self.logouts += 1
            return 200, {"logged_out": True}
        if method == "GET" and segments[:1] == ["databases"]:
            return self._databases(segments[1:])
        return 404, {"error": "not found"}

    def _login(self, body: bytes) -> Answer:
        if parse_qs(body.decode()) != self._account:
            return 401, {"error": "unauthorized", "message": "the provided credentials did not match"}
        token = secrets.token_urlsafe(24)
        self._sessions.add(token)
        self.tokens.append(token)
        self.logins += 1
        return 200, {"session": token}

    def _databases(self, segments: list[str]) -> Answer:
        if not segments:
            return 200, {"databases": [each["entry"] for each in self._world.values()], "next": None}
        database = self._world.get(segments[0])
        if database is None:
            return _missing("database", segments[0])
        match segments[1:]:
            case []:
                return 200, database["details"]
            case ["grants"]:
                return 200, {"grants": database["grants"]}
            case ["tables"]:
                return 200, {"tables": [each["listed"] for each in database["tables"]], "total": "40"}
        tables = {each["listed"]["name"]: each["details"] for each in database["tables"]}
        name = segments[-1]
        return (200, tables[name]) if segments[1:] == ["tables", name] and name in tables else _missing("table", name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(owner: IndependentServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # Header and body leave in one packet.

        def do_GET(self) -> None:
            self._respond("GET")

        def do_POST(self) -> None:
            self._respond("POST")

        def _respond(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            session = self.headers.get("X-Cockroach-API-Session")
            status, document = owner.answer(method, self.path, session, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    return Handler
