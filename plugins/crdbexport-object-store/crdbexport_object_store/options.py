"""The options of the sink, and what obstore makes of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from crdbexport import ConfigError, SinkConfig
from crdbexport.config import Secret
from crdbexport.errors import shown

REMOTE_SCHEMES = ("s3", "s3a", "gs", "az")
TRIAL_SCHEMES = ("file", "memory")
MIB = 1 << 20
# What obstore itself reads, and nobody shall read in a log.
SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)


class ObjectStoreConfig(SinkConfig, frozen=True, kw_only=True):
    """What may be said of a bucket and of the files in it."""

    url: str
    """Where to publish: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///DIR`."""
    format: Literal["parquet", "jsonl"] = "parquet"
    compression: Literal["none", "gzip", "zstd"] | None = None
    """Of JSON Lines; by default none. Parquet is always compressed with zstd."""
    compression_level: Annotated[int, Meta(ge=1, le=19)] = 3
    """The effort of zstd in Parquet."""
    row_group_rows: Annotated[int, Meta(ge=1_000, le=1_000_000)] = 65_536
    """How many rows of Parquet are held in memory per stream, and written as one row group."""
    endpoint: str | None = None
    """The address of a store that is not the cloud's own, such as `https://minio.example:9000`."""
    region: str | None = None
    allow_http: bool = False
    """Let requests travel in clear, as to a store on this machine."""
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    store: dict[str, Secret] = {}
    """Further settings of obstore for this kind of store, such as `account_key`; no value is ever shown."""
    part_bytes: Annotated[int, Meta(ge=1_024, le=1_024 * MIB)] = 8 * MIB
    """Larger files travel in parts of this size, four at a time. S3 takes no part of less than 5 MiB but the last."""
    retries: Annotated[int, Meta(ge=0, le=20)] = 5
    """How often a request is sent again that was throttled, failed or found no connection."""
    request_timeout_seconds: Annotated[float, Meta(gt=0)] = 60.0
    """How long one request may take."""
    staging_dir: Path | None = None
    """Where files wait until they are uploaded; by default the system's directory for temporary files."""
    timeout_seconds: float = 900.0
    """How long one step may take, the upload of the whole run among them, before the sink is cut off."""

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].lower()


def check_options(config: ObjectStoreConfig) -> None:
    """Raise ConfigError for what can be known to be wrong without asking anybody."""
    try:
        parts = urlsplit(config.url)
    except ValueError as error:
        raise ConfigError("option url: not a URL; it looks like s3://bucket/prefix") from error
    if parts.scheme not in (*REMOTE_SCHEMES, *TRIAL_SCHEMES) or "://" not in config.url:
        what = f"{shown(parts.scheme)} is no kind of store known here" if "://" in config.url else "not a URL"
        known = ", ".join(f"{each}://" for each in (*REMOTE_SCHEMES, *TRIAL_SCHEMES))
        raise ConfigError(f"option url: {what}; it begins with one of {known}")
    if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
        raise ConfigError("option url: names no directory by its full path; it looks like file:///DIR")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("option url: holds a user, a query or a fragment; credentials have options of their own")
    if parts.scheme in REMOTE_SCHEMES and not parts.netloc:
        raise ConfigError("option url: names no bucket; it looks like s3://bucket/prefix")
    if (config.endpoint or "").startswith("http://") and not config.allow_http:
        raise ConfigError("option endpoint: requests would travel in clear; use https, or set allow_http = true")
    if config.format == "parquet" and config.compression in ("none", "gzip"):
        raise ConfigError("option compression: Parquet is always compressed with zstd; leave it out, or use jsonl")


def store_settings(config: ObjectStoreConfig) -> dict[str, str]:
    """The settings of obstore's store; secrets are in clear here."""
    named: dict[str, str | Secret | None] = {
        "base_url" if config.scheme == "gs" else "endpoint": config.endpoint,
        "region": config.region,
        "access_key_id": config.access_key_id,
        "secret_access_key": config.secret_access_key,
        "session_token": config.session_token,
        **config.store,
    }
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in named.items()
        if value is not None
    }


def client_settings(config: ObjectStoreConfig, *, quick: bool) -> dict[str, Any]:
    """The settings of obstore's HTTP client and of its retries; `quick` for a look before a run."""
    from datetime import timedelta

    timeout = min(config.request_timeout_seconds, 5.0) if quick else config.request_timeout_seconds
    retries = min(config.retries, 1) if quick else config.retries
    return {
        "client_options": {
            "allow_http": config.allow_http,
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=min(5.0, timeout)),
            # Connections of a sink that has ended are closed soon.
            "pool_idle_timeout": timedelta(milliseconds=500),
            "user_agent": "crdbexport-object-store",
        },
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=timeout * (retries + 1)),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    }


def secrets_of(config: ObjectStoreConfig) -> Iterator[str]:
    """What must be shown nowhere: options, and what obstore finds in the environment."""
    yield from (each.reveal() for each in config.store.values())
    yield from (value for name in SECRET_VARIABLES if (value := os.environ.get(name)))
