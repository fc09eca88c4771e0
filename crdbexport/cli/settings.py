"""From what was typed, set and written to a config: command line, then environment, then file, then default."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
import msgspec
from click.core import ParameterSource

from crdbexport.cli import logs
from crdbexport.cli.environment import warn_of_misspelt
from crdbexport.config import VOICE, ExportConfig, parse_config, read_toml
from crdbexport.errors import ConfigError, shown
from crdbexport.options import Secret, convert
from crdbexport.redaction import Redaction

NOT_OF_THE_RUN = VOICE | {"config", "sink", "sink_option"}
TABLES = ("sinks", "transforms")
# Known as secrets from the very start, whatever becomes of the command.
SECRET_VARIABLES = tuple(f"CRDBEXPORT_{name}" for name in ("PASSWORD", "SESSION", "WEBHOOK_SECRET", "MASK_KEY"))
SINK = re.compile(r"(?:(?P<name>[A-Za-z0-9_-]+)=)?(?P<type>[^:=]+)(?::(?P<target>.*))?", re.DOTALL)
SINK_OPTION = re.compile(r"(?P<name>[^.=]+)\.(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)


class Voice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is said on standard error, and in which form."""

    log_format: Literal["text", "json"] = "text"
    quiet: bool = False
    verbose: int = 0

    @property
    def for_people(self) -> bool:
        """Whether there is more to say than the log says."""
        return self.log_format == "text" and not self.quiet


class Settled(NamedTuple):
    """What all sources together ask for."""

    config: ExportConfig
    voice: Voice
    redaction: Redaction


def settled(ctx: click.Context, params: dict[str, Any]) -> Settled:
    """What all sources together ask for; sets up the log on the way."""
    redaction = Redaction()
    redaction.learn(*(os.environ.get(name) for name in SECRET_VARIABLES))
    # A mistake in the file is told in the form that the command line asks for.
    logs.set_up(params["log_format"], -1 if params["quiet"] else params["verbose"], redaction)
    path: Path | None = params["config"]
    file = read_toml(path) if path else {}
    where = str(path) if path else "configuration"
    _refuse_unknown(file, ctx, where)
    values = {name: _value(ctx, name, value, file) for name, value in params.items()}
    voice: Voice = convert({name: values[name] for name in VOICE}, Voice, where=where)
    logs.set_up(voice.log_format, -1 if voice.quiet else voice.verbose, redaction)
    settings = {name: value for name, value in values.items() if name not in NOT_OF_THE_RUN}
    settings["sinks"] = _sinks(values.get("sink") or (), values.get("sink_option") or (), file.get("sinks", {}))
    settings["transforms"] = file.get("transforms", [])
    settings |= _secrets(ctx, values)
    warn_of_misspelt(_texts([settings["sinks"], settings["transforms"]]))
    given = {name: value for name, value in settings.items() if value is not None}
    return Settled(parse_config(given, where=where), voice, redaction)


def _value(ctx: click.Context, name: str, value: Any, file: dict[str, Any]) -> Any:
    """The file's value where neither the command line nor the environment gave one."""
    if name not in file or ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
        return value
    given = file[name]
    return (given,) if isinstance(value, tuple) and isinstance(given, str) else given


def _refuse_unknown(file: dict[str, Any], ctx: click.Context, where: str) -> None:
    known = [*ExportConfig.__struct_fields__, *NOT_OF_THE_RUN, *TABLES]
    for key in file:
        if key not in known or key in ("config", "sink", "sink_option"):
            close = difflib.get_close_matches(key, known, n=1)
            instead = "sinks" if key in ("sink", "sink_option") else close[0] if close else ""
            hint = f"; did you mean {instead!r}?" if instead else ""
            raise ConfigError(f"{where}: unknown option {key!r}{hint}")


def _sinks(
    given: tuple[str, ...], options: tuple[str, ...], in_file: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Sinks by name; those of the command line take the place of the file's, options are laid over both."""
    if not isinstance(in_file, dict) or not all(isinstance(each, dict) for each in in_file.values()):
        raise ConfigError("sinks: expected tables such as [sinks.lake] with a type")
    sinks = {name: dict(each) for name, each in in_file.items()} if not given else _parsed(given)
    for text in options:
        found = SINK_OPTION.fullmatch(text)
        if not found:
            raise ConfigError("--sink-option: expected NAME.KEY=VALUE, such as lake.compression_level=9")
        if found["name"] not in sinks:
            known = ", ".join(sinks) or "none"
            raise ConfigError(
                f"--sink-option {found['name']}.{found['key']}: no sink is named {found['name']!r}; there is: {known}"
            )
        _lay(sinks[found["name"]], found["key"], found["value"])
    return sinks


def _lay(options: dict[str, Any], key: str, value: str) -> None:
    """Set an option, or with KEY.NAME one entry of an option that is a table; NAME may itself hold dots."""
    option, dot, entry = key.partition(".")
    option = option.replace("-", "_")
    if dot:
        table = options.get(option)
        options[option] = {**(table if isinstance(table, dict) else {}), entry: value}
    else:
        options[option] = value


def _parsed(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    sinks: dict[str, dict[str, Any]] = {}
    for text in given:
        found = SINK.fullmatch(text)
        if not found:
            raise ConfigError(f"--sink {shown(text)}: expected [NAME=]TYPE[:TARGET], such as parquet:./lake")
        name = found["name"] or found["type"]
        if name in sinks:
            raise ConfigError(f"two sinks are named {name!r}; give one another name: --sink OTHER={found['type']}:...")
        target = {} if found["target"] is None else {"target": found["target"]}
        sinks[name] = {"type": found["type"], **target}
    return sinks


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _secrets(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Secrets come from the environment, or from whoever sits at the terminal."""
    session, password = os.environ.get("CRDBEXPORT_SESSION"), os.environ.get("CRDBEXPORT_PASSWORD")
    if ctx.get_parameter_source("password_file") is ParameterSource.COMMANDLINE:
        password = None
    secrets = {
        "session": Secret(session) if session else None,
        "password": Secret(password) if password else None,
    }
    wanted = values.get("username") and not (session or password or values.get("password_file"))
    if wanted and sys.stdin is not None and sys.stdin.isatty():
        secrets["password"] = Secret(click.prompt(f"Password for {values['username']}", hide_input=True, err=True))
    return secrets
