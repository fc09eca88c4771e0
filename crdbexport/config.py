"""What a run is asked to do: one frozen value, filled from arguments, environment and a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from crdbexport.addresses import base_url
from crdbexport.errors import ConfigError, shown
from crdbexport.options import Secret, convert
from crdbexport.records import STREAMS, GapReason

__all__ = ["ExportConfig", "Secret", "convert", "load_config", "parse_config"]

# Settings of the command line that a file may hold and that do not concern a run.
VOICE = frozenset({"log_format", "quiet", "verbose"})
REPEATABLE = frozenset({"url", "stream", "include", "database", "exclude_database", "allow_gaps", "plugin"})
SECRETS = ("password", "session")
DialectName = Literal["auto", "documented", "native"]
StreamName = Literal["databases", "database_grants", "tables", "columns", "indexes", "table_grants"]
IncludeName = Literal[
    "create_statement", "configure_zone_statement", "zone_config", "column_default", "generation_expression"
]


class ExportConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that an export needs to know. Field names are the option names of the command line.

    `sinks` maps a sink's name to its options, `type` and optionally `target` among them; `transforms` lists
    transforms with their options in the order in which they run.
    """

    url: tuple[str, ...] = ()
    cluster: str = ""
    sandbox: bool = False
    username: str | None = None
    password: Secret | None = None
    password_file: Path | None = None
    session: Secret | None = None
    no_login: bool = False
    sinks: dict[str, dict[str, Any]] = {}
    transforms: tuple[dict[str, Any], ...] = ()
    stream: tuple[StreamName, ...] = ()
    include: tuple[IncludeName, ...] = ()
    database: tuple[str, ...] = ()
    exclude_database: tuple[str, ...] = ()
    run_id: str | None = None
    logical_time: str | None = None
    allow_gaps: tuple[GapReason, ...] = ()
    allow_shrink: bool = False
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    max_rps: Annotated[float, msgspec.Meta(gt=0)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    ca_cert: Path | None = None
    insecure_http: bool = False
    trust_env: bool = False
    dialect: DialectName = "auto"
    refresh_stats: bool = False
    report: str | None = None
    state_dir: Path | None = None
    keep_spool: bool = False
    spool_limit: Annotated[int, msgspec.Meta(ge=1)] = 10_240
    strict: bool = False
    no_plugins: bool = False
    plugin: tuple[Path, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams to export, in the order in which they are declared; all of them unless some are named."""
        return tuple(name for name in STREAMS if not self.stream or name in self.stream)

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The base URLs with `/api/v2` at their end."""
        return tuple(base_url(each) for each in self.url)


def parse_config(settings: Mapping[str, Any], *, where: str = "configuration") -> ExportConfig:
    """Settings as a config; raises `ConfigError` that names the setting and what was expected of it."""
    config: ExportConfig = convert(dict(settings), ExportConfig, where=where)
    return config


def load_config(path: str | os.PathLike[str], **overrides: Any) -> ExportConfig:
    """The config of a TOML file, with `overrides` on top; secrets come from the environment unless given."""
    settings = {
        name: [value] if name in REPEATABLE and isinstance(value, str) else value
        for name, value in {**read_toml(Path(path)), **overrides}.items()
        if name not in VOICE
    }
    for name in SECRETS:
        if (value := os.environ.get(f"CRDBEXPORT_{name.upper()}")) and "password_file" not in settings:
            settings.setdefault(name, value)
    return parse_config(settings, where=os.fspath(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The file's settings, not yet checked; raises `ConfigError` with line and column where it is not TOML."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for name in SECRETS:
        if name in settings:
            raise ConfigError(f"{path}: {name!r} does not belong in a file; set CRDBEXPORT_{name.upper()}")
    return settings


def logical_time(config: ExportConfig, now: datetime) -> datetime:
    """The time that the snapshot stands for: as given, else the UTC day of `now`."""
    text = config.logical_time
    if text is None:
        return datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--logical-time {shown(text)}: give a date (2026-01-31) or a time (2026-01-31T04:00:00Z)"
        ) from error


def state_directory(config: ExportConfig) -> Path:
    """Where runs keep their spool and state: --state-dir, else the user's own place for state."""
    if config.state_dir is not None:
        return config.state_dir
    import platformdirs

    return Path(os.environ.get("CRDBEXPORT_STATE_DIR") or platformdirs.user_state_path("crdbexport"))
