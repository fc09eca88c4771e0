"""The addresses of a cluster, as they are given and as they are asked."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from crdbexport.errors import ConfigError

API_PATH = "/api/v2"


def base_url(url: str) -> str:
    """`url` with `/api/v2` at its end, whether it was there or not; raises `ConfigError` for what cannot be one."""
    if "@" in url:
        raise ConfigError("--url must not hold a user or password; use --username and CRDBEXPORT_PASSWORD")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"--url: not a URL ({error})") from error
    if "?" in url or "#" in url:
        raise ConfigError("--url must hold neither a query nor a fragment")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--url {url}: not a URL of a cluster; it looks like https://host:8080")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix(API_PATH)
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}{API_PATH}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name or address; no name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
