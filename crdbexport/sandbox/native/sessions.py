"""Session tokens as real servers make them, and what the servers say to wrong ones."""

from __future__ import annotations

import base64
import re
import secrets
from http import HTTPStatus

from crdbexport.sandbox.native.quirks import Generation
from crdbexport.sandbox.native.replies import NO_HEADER, NO_SESSION, RefusedError, internal_error

SECRET_BYTES = 16
SMALLEST_ID, LARGEST_ID = 2**56, 2**63
# A protobuf of two fields: an id, as a varint, and a secret.
TOKEN = re.compile(rb"\x08((?:[\x80-\xff]{0,9})[\x00-\x7f])\x12\x10(.{16})", re.DOTALL)
NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


class Sessions:
    """The sessions of a cluster; `live` holds the tokens that are good. Rows stay when a session ends."""

    def __init__(self, live: set[str], generation: Generation) -> None:
        self._live = live
        self._strict = generation == "v22"
        self._rows: dict[int, str] = {}

    def open(self) -> str:
        """A new session's token."""
        session_id = SMALLEST_ID + secrets.randbelow(LARGEST_ID - SMALLEST_ID)
        packed = b"\x08" + _varint(session_id) + b"\x12\x10" + secrets.token_bytes(SECRET_BYTES)
        token = base64.b64encode(packed).decode("ascii")
        self._rows[session_id] = token
        self._live.add(token)
        return token

    def check(self, token: str) -> None:
        """Raises RefusedError unless the token is one of a session that is good."""
        if not token:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, NO_HEADER)
        packed = _decoded(token)
        if packed is None:
            text = NO_HEADER if self._strict else _illegal(token)
            raise RefusedError(HTTPStatus.BAD_REQUEST, text)
        if _session_id(packed) is None and self._strict:
            raise RefusedError(HTTPStatus.BAD_REQUEST, NO_HEADER)
        if token not in self._live:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, NO_SESSION)

    def close(self, token: str) -> None:
        """End the session with the token's id, whatever its secret; raises RefusedError where there is none."""
        if not token:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "invalid or unspecified session")
        packed = _decoded(token)
        session_id = None if packed is None else _session_id(packed)
        if session_id is None:
            raise internal_error()
        if session_id not in self._rows:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "invalid session")
        self._live.discard(self._rows[session_id])


def _decoded(token: str) -> bytes | None:
    try:
        return base64.b64decode(token, validate=True)
    except ValueError:
        return None


def _session_id(packed: bytes) -> int | None:
    match = TOKEN.fullmatch(packed)
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(match[1])) if match else None


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _illegal(token: str) -> str:
    """What Go's decoder says."""
    found = NOT_BASE64.search(token.rstrip("="))
    return f"illegal base64 data at input byte {found.start() if found else len(token)}"
