"""What can be known to be wrong with a config without asking anybody."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from crdbexport.addresses import is_loopback
from crdbexport.config import ExportConfig, logical_time
from crdbexport.credentials import password
from crdbexport.errors import ConfigError, shown
from crdbexport.records import ON_REQUEST


def check(config: ExportConfig) -> None:
    """Raise `ConfigError` for what can be known to be wrong without asking anybody."""
    if not config.sandbox:
        _check_address(config)
        _check_credentials(config)
    if config.run_id is not None and not config.run_id.strip():
        raise ConfigError("--run-id is empty; leave it out to have one made")
    for name, value in (("--cluster", config.cluster), ("--run-id", config.run_id or "")):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(f"{name} is not valid UTF-8; it stands in every record")
    _check_include(config)
    _check_report(config.report)
    logical_time(config, datetime.now(UTC))


def _check_include(config: ExportConfig) -> None:
    for name in config.include:
        stream = ON_REQUEST[name]
        if stream not in config.streams:
            raise ConfigError(
                f"--include {name}: a field of the stream {stream}, which is not exported; add --stream {stream}, or "
                f"leave --include {name} out"
            )


def _check_report(report: str | None) -> None:
    if report is None or report == "-":
        return
    path = Path(report)
    if not path.parent.is_dir():
        raise ConfigError(f"--report {report}: there is no such directory; make it, or name another file")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--report {report}: cannot be written; name another file")


def _check_address(config: ExportConfig) -> None:
    if not config.url:
        raise ConfigError("no cluster to read: give --url URL and --cluster NAME, or --sandbox to try it out")
    if not config.cluster:
        raise ConfigError("no name for the cluster: give --cluster NAME; it stands in every record")
    for base in config.base_urls:
        host = urlsplit(base).hostname or ""
        plain = base.startswith("http://") and not is_loopback(host)
        if plain and not config.no_login and not config.insecure_http:
            raise ConfigError(
                f"--url {base}: a password or session would travel in clear; use https, or add --insecure-http"
            )


def _check_credentials(config: ExportConfig) -> None:
    given = [config.no_login, config.session is not None, config.username is not None]
    if not any(given):
        raise ConfigError(
            "no credentials: give --username and CRDBEXPORT_PASSWORD (or --password-file), or CRDBEXPORT_SESSION, "
            "or --no-login for a cluster without authentication"
        )
    if config.no_login and any(given[1:]):
        raise ConfigError("--no-login goes with neither --username nor CRDBEXPORT_SESSION")
    if config.username is not None and config.session is None and password(config) is None:
        raise ConfigError(
            f"no password for user {shown(config.username)}: set CRDBEXPORT_PASSWORD, or give --password-file"
        )
