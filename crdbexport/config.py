"""What a run is asked to do: one frozen value, filled from arguments, environment and a file, checked in one place."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from crdbexport.errors import ConfigError, shown
from crdbexport.records import ON_REQUEST, STREAMS, GapReason

API_PATH = "/api/v2"
# Settings of the command line that a file may hold and that do not concern a run.
VOICE = frozenset({"log_format", "quiet", "verbose"})
REPEATABLE = frozenset({"url", "stream", "include", "database", "exclude_database", "allow_gaps", "plugin"})
SECRETS = ("password", "session")
OTHERS = stat.S_IROTH | stat.S_IWOTH
DialectName = Literal["auto", "documented", "native"]
StreamName = Literal["databases", "database_grants", "tables", "columns", "indexes", "table_grants"]
IncludeName = Literal[
    "create_statement", "configure_zone_statement", "zone_config", "column_default", "generation_expression"
]

log = logging.getLogger(__name__)


class Secret:
    """A value that never shows: every way to print it gives `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; call it only where it is sent."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


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


def convert(settings: Any, wanted: Any, *, where: str) -> Any:
    """`settings` decoded into the struct `wanted`; `where` begins the message of the `ConfigError`."""
    try:
        return msgspec.convert(settings, wanted, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explained(str(error), wanted)}") from error


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value).expanduser()
    if wanted is Secret and isinstance(value, str | int):
        # Settings of stores are texts, also those that TOML writes as true or 8080.
        return Secret(value if isinstance(value, str) else str(value).lower())
    if isinstance(value, wanted):
        return value
    # msgspec adds the place to these, but not to an error of its own.
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def _explained(problem: str, wanted: Any) -> str:
    """msgspec's message in words of the configuration: the option first, and a near miss pointed out."""
    text, _, path = problem.partition(" - at `$")
    option = path.strip("`.").replace("[...]", "")
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        close = difflib.get_close_matches(unknown[1], wanted.__struct_fields__, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(wanted.__struct_fields__)}"
        return f"unknown option {unknown[1]!r}{hint}"
    missing = re.search(r"missing required field `(.+)`", text)
    if missing:
        return f"option {missing[1]!r} is required"
    return f"{option}: {text}{_choices(text, option, wanted)}" if option else text


def _choices(text: str, option: str, wanted: Any) -> str:
    """What there is to choose from, where an option that is one of a few texts is another."""
    kind = next((each.type for each in msgspec.structs.fields(wanted) if each.encode_name == option), None)
    literals = [each for each in (kind, *get_args(kind)) if get_origin(each) is Literal]
    choices = ", ".join(repr(value) for each in literals for value in get_args(each))
    return f"; give one of {choices}" if choices and text.startswith("Invalid enum value") else ""


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


def password(config: ExportConfig) -> Secret | None:
    """The password that was given, or the first line of the password file."""
    if config.password is not None or config.password_file is None:
        return config.password
    path = config.password_file
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            line = file.readline()
    except OSError as error:
        raise ConfigError(f"--password-file {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        # The error itself quotes a byte of it.
        raise ConfigError(f"--password-file {path}: cannot be read (it is not UTF-8 text)") from error
    if mode & OTHERS:
        log.warning(
            "--password-file %s: every user of this machine may open it (mode %04o); take that away with chmod o= FILE",
            path,
            mode,
            extra={"event": "password_file_open"},
        )
    return Secret(line.rstrip("\r\n"))


def with_password(config: ExportConfig) -> ExportConfig:
    """The config with the password in it, where one is needed: its file is read once, for it may be a pipe."""
    if config.username is None or config.session is not None:
        return config
    return msgspec.structs.replace(config, password=password(config))


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
