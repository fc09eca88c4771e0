"""What PostgreSQL's errors mean for a run: which can be tried again, which cannot, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from adbc_driver_postgresql import dbapi

from crdbexport import ConfigError, CrdbExportError, SinkError, SinkRefusedError

AGAIN = "run the same command again"
# By SQLSTATE, or by its first two signs, its class.
MEANINGS: dict[str, tuple[type[CrdbExportError], str]] = {
    "08": (SinkError, AGAIN),
    "21000": (SinkRefusedError, "two records of the run have the same record_id; see what a transform makes of names"),
    "22": (SinkRefusedError, "see whether the table was changed by hand"),
    "23": (SinkRefusedError, "see which constraint or trigger was added to the table by hand"),
    "25006": (SinkRefusedError, "name a server that takes writes, such as with target_session_attrs=read-write"),
    "28": (SinkRefusedError, "check user and password, and what pg_hba.conf lets in"),
    "3D000": (ConfigError, "create the database, or name another one"),
    "40": (SinkError, AGAIN),
    "42501": (SinkRefusedError, "grant that to the user"),
    "42939": (ConfigError, "give option schema another name"),
    "42": (SinkRefusedError, "see whether the schema or a table was changed by hand"),
    "53100": (SinkError, f"free space on the server, then {AGAIN}"),
    "53": (SinkError, f"let the server have more of it, then {AGAIN}"),
    "55P03": (SinkError, f"another run, or somebody else, holds the tables; {AGAIN}, or raise lock_timeout_seconds"),
    "57014": (SinkError, f"raise the server's statement_timeout for the user, then {AGAIN}"),
    "57": (SinkError, AGAIN),
}
# libpq tells no SQLSTATE of a connection that was refused, only the server's words.
CONNECTING: dict[str, str] = {
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in": "28",
    r"role .* does not exist|rejects connection": "28",
    r"database .* does not exist": "3D000",
    r"permission denied for database": "42501",
    r"session is read-only|is not read-only|is in hot standby": "25006",
}
TLS = r"certificate|support SSL|SSL error"


@contextmanager
def server_errors(where: str) -> Iterator[None]:
    """Turn what the driver raises into an error that says where, what, and what to do now."""
    try:
        yield
    except dbapi.Error as error:
        # Its own text quotes statements and rows.
        told = _told(error)
        broken = not error.sqlstate
        kind, advice = _meaning(error.sqlstate or "08")
        what = f"the connection broke ({told})" if broken else told
        raise kind(f"{where}: {what}; {advice}") from None


def refused_connection(where: str, text: str) -> CrdbExportError:
    """The error for a connection that did not come about; `text` is libpq's.

    What libpq says of a URI that it cannot read quotes it, password and all; of that the first words are told.
    """
    # Where the system gives it no socket, libpq says nothing at all.
    words = " ".join(text.rpartition("Failed to connect: ")[2].split()) or "connection to server failed"
    if not re.search(r"connection to server|could not translate host name", words):
        return ConfigError(
            f"option uri: {words.partition(chr(34))[0].strip(' :')}; mend it, and quote user and password"
        )
    for pattern, sqlstate in CONNECTING.items():
        if re.search(pattern, words):
            kind, advice = _meaning(sqlstate)
            return kind(f"{where}: {words}; {advice}")
    if re.search(TLS, words):
        return SinkRefusedError(f"{where}: {words}; check sslmode and the certificates")
    return SinkError(f"{where}: {words}; see that the server is up, then {AGAIN}")


def _meaning(sqlstate: str) -> tuple[type[CrdbExportError], str]:
    return MEANINGS.get(sqlstate) or MEANINGS.get(sqlstate[:2]) or (SinkError, AGAIN)


def _told(error: dbapi.Error) -> str:
    """The server's own sentence; without one, the driver's first line."""
    details = {name: value for name, value in error.details if isinstance(value, bytes)}
    primary = details.get("PG_DIAG_MESSAGE_PRIMARY")
    text = primary.decode("utf-8", "replace") if primary else str(error).partition("\n")[0]
    return " ".join(text.split())
