"""The connection URI as libpq reads it: what of it may be shown, what is secret, and what crdbexport adds to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from crdbexport import ConfigError

FORM = "postgresql://user@host/database"
# libpq ends user and password at the first @ before any slash, whatever else stands in between.
_URI = re.compile(r"postgres(?:ql)?://(?:(?P<login>[^@/]*)@)?(?P<place>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_PASSWORD_FILE, _SERVICE_FILE = Path("~/.pgpass"), Path("~/.pg_service.conf")
# These go before what the user says, and yield to it; those after it hold.
_DEFAULTS = {"connect_timeout": ("PGCONNECT_TIMEOUT", "10"), "keepalives_idle": ("", "30")}
_ALWAYS = {"client_encoding": "UTF8", "fallback_application_name": "crdbexport"}


class ConnectionURI:
    """A URI of the option `uri`. Raises ConfigError for what is none, and never quotes it."""

    def __init__(self, text: str) -> None:
        self._text = text
        parts = _URI.fullmatch(text)
        if parts is None:
            raise ConfigError(f"option uri: not a connection URI; it looks like {FORM}")
        self._login, self._place, self._query = parts["login"], parts["place"], parts["query"]

    @property
    def shown(self) -> str:
        """Host and database; less where it is not sure that nothing else stands there."""
        if self._login is None and "@" in self._text:
            return "postgresql://..."
        return f"postgresql://{self._place}"

    def secrets(self) -> Iterator[str]:
        """What must not be shown: passwords in the URI, in the environment, and in the files that libpq looks into."""
        # Greedy: a password that was not quoted may hold any of the signs that end it.
        if found := re.search(r"://[^:]*:(.*)@", self._text, re.DOTALL):
            yield from (found[1], unquote(found[1]))
        if self._login is not None:
            password = self._login.partition(":")[2]
            yield from (password, unquote(password))
        parameters = dict(parse_qsl(self._query or ""))
        yield from (parameters[name] for name in _SECRET_PARAMETERS if name in parameters)
        yield os.environ.get("PGPASSWORD", "")
        yield from _passwords_in(parameters.get("passfile") or os.environ.get("PGPASSFILE") or _PASSWORD_FILE)
        yield from _services_in(os.environ.get("PGSERVICEFILE") or _SERVICE_FILE)

    def completed(self, password: str | None) -> str:
        """The URI to connect with: `password` goes before the one in it, and the connection is bounded in time."""
        given = dict(parse_qsl(self._query or "", keep_blank_values=True))
        added = {
            name: value
            for name, (variable, value) in _DEFAULTS.items()
            if name not in given and not os.environ.get(variable)
        }
        added |= _ALWAYS | ({} if password is None else {"password": password})
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in added.items())
        return f"{self._text}{'?' if self._query is None else '&'}{query}"


def _passwords_in(path: str | Path) -> Iterator[str]:
    """The passwords of a password file; their colons and backslashes are escaped there."""
    for line in _lines(path):
        fields = re.split(r"(?<!\\):", line, maxsplit=4)
        yield re.sub(r"\\(.)", r"\1", fields[-1])


def _services_in(path: str | Path) -> Iterator[str]:
    for line in _lines(path):
        name, _, value = line.partition("=")
        if name.strip() in _SECRET_PARAMETERS:
            yield value.strip()


def _lines(path: str | Path) -> list[str]:
    with suppress(OSError, RuntimeError):  # A user without a home has no such file.
        text = Path(path).expanduser().read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line and not line.startswith("#")]
    return []
