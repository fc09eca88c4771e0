"""Secrets that must turn up nowhere: a password that is hard to hide, and every session that a sandbox hands out."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

# Something of everything that one encoding or another writes differently.
PASSWORD = 's3cret/Kanari=&+ "ü\\%'
VARIABLES = tuple(f"CRDBEXPORT_{name}" for name in ("PASSWORD", "SESSION", "WEBHOOK_SECRET", "MASK_KEY"))
SHORTEST = 6


class Canaries:
    """The secrets of a test. Sandboxes behind `taught` take `PASSWORD` for their own password."""

    def __init__(self) -> None:
        self.sessions: list[str] = []

    def taught(self, app: Any) -> Any:
        """The application, with its logins listened to."""

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def hear(message: Any) -> None:
                if b'"session"' in (body := message.get("body", b"")):
                    self.sessions.append(json.loads(body)["session"])
                await send(message)

            if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/login"):
                await app(*await _translated(scope, receive, app), hear)
            else:
                await app(scope, receive, send)

        return serve

    def secrets(self, *more: str) -> set[str]:
        """All that must not be found; what is too short to be looked for is left out."""
        known = {PASSWORD, *self.sessions, *more, *(os.environ.get(name, "") for name in VARIABLES)}
        return {each for each in known if len(each) >= SHORTEST}

    def assert_hidden(self, place: Path, told: str, *more: str) -> None:
        """No secret is in what was told, nor in any file or name below the place, in any shape."""
        shapes = [shape for secret in self.secrets(*more) for shape in shapes_of(secret)]
        for source, text in (("what was told", told.encode(errors="surrogateescape")), *_written(place)):
            for shape in shapes:
                assert shape not in text, f"{source} holds a secret, as {shape!r}"


def shapes_of(secret: str) -> set[bytes]:
    """The secret as it may stand in a text: plain, quoted, escaped, or encoded, also within something longer."""
    raw = secret.encode(errors="surrogateescape")
    texts = {
        secret,
        quote(secret, errors="surrogateescape"),
        quote(secret, safe="", errors="surrogateescape"),
        quote_plus(secret, errors="surrogateescape"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        repr(raw)[2:-1],
        html.escape(secret),
        raw.hex(),
    }
    for before in (b"", b":", b"::"):
        encoded = base64.b64encode(before + raw)[(len(before) * 8 + 5) // 6 : (len(before + raw)) * 8 // 6]
        texts |= {encoded.decode(), encoded.decode().translate(str.maketrans("+/", "-_"))}
    return {text.encode(errors="surrogateescape") for text in texts}


async def _translated(scope: Any, receive: Any, app: Any) -> tuple[Any, Any]:
    """A login with the canary as the application's own password."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    own = getattr(app, "_account", ("", PASSWORD))[1]
    body = body.replace(quote_plus(PASSWORD).encode(), quote_plus(own).encode())
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    waiting: Iterator[Any] = iter([{"type": "http.request", "body": body}])

    async def again() -> Any:
        return next(waiting, None) or await receive()

    return {**scope, "headers": [*kept, (b"content-length", str(len(body)).encode())]}, again


def _written(place: Path) -> Iterable[tuple[str, bytes]]:
    # Other runs may be at work there: what is gone when its turn comes is passed over.
    for directory, directories, files in os.walk(place):
        for each in (*directories, *files):
            path = Path(directory, each)
            name = str(path.relative_to(place))
            yield f"the name {name}", os.fsencode(name)
            if path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    yield name, path.read_bytes()
