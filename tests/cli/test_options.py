"""Every option has a variable and a key in the file, and the nearer word wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from crdbexport import ConfigError
from crdbexport.cli import cli
from crdbexport.cli.check import command as check_command
from crdbexport.cli.export import command as export_command
from crdbexport.cli.settings import Settled, settled

# What is said as text, what is written in the file, and what comes of both.
OPTIONS: dict[str, tuple[str, str, Any]] = {
    "url": ("https://a https://b", '["https://a", "https://b"]', ("https://a", "https://b")),
    "cluster": ("c9", '"c9"', "c9"),
    "sandbox": ("1", "true", True),
    "username": ("u9", '"u9"', "u9"),
    "password_file": ("/p", '"/p"', Path("/p")),
    "no_login": ("true", "true", True),
    "ca_cert": ("/ca.pem", '"/ca.pem"', Path("/ca.pem")),
    "insecure_http": ("yes", "true", True),
    "trust_env": ("1", "true", True),
    "dialect": ("documented", '"documented"', "documented"),
    "concurrency": ("3", "3", 3),
    "max_rps": ("2.5", "2.5", 2.5),
    "timeout": ("7", "7", 7.0),
    "stream": ("tables columns", '["tables", "columns"]', ("tables", "columns")),
    "include": ("zone_config column_default", '["zone_config", "column_default"]', ("zone_config", "column_default")),
    "database": ("a b", '["a", "b"]', ("a", "b")),
    "exclude_database": ("a", '"a"', ("a",)),
    "run_id": ("r9", '"r9"', "r9"),
    "logical_time": ("2026-01-31", '"2026-01-31"', "2026-01-31"),
    "allow_gaps": ("forbidden view", '["forbidden", "view"]', ("forbidden", "view")),
    "allow_shrink": ("1", "true", True),
    "refresh_stats": ("1", "true", True),
    "strict": ("1", "true", True),
    "keep_spool": ("1", "true", True),
    "spool_limit": ("7", "7", 7),
    "report": ("r.json", '"r.json"', "r.json"),
    "state_dir": ("/state", '"/state"', Path("/state")),
    "no_plugins": ("1", "true", True),
    "plugin": ("/a.py:/b.py", '["/a.py", "/b.py"]', (Path("/a.py"), Path("/b.py"))),
    "log_format": ("json", '"json"', "json"),
    "quiet": ("1", "true", True),
    "verbose": ("2", "2", 2),
}
NOT_IN_THE_FILE = {"config", "sink", "sink_option"}

Settle = Callable[..., Settled]


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settle:
    """What the command line makes of arguments, with the given text as its file."""
    monkeypatch.delenv("CRDBEXPORT_STATE_DIR")

    def run(*arguments: str, file: str = "", command: click.Command = export_command) -> Settled:
        path = tmp_path / "settings.toml"
        path.write_text(file)
        with command.make_context("x", [*arguments, *(["--config", str(path)] if file else [])]) as context:
            return settled(context, context.params)

    return run


def value(of: Settled, name: str) -> Any:
    return getattr(of.voice if hasattr(of.voice, name) else of.config, name)


def test_every_option_is_in_this_table() -> None:
    names = {each.name for each in export_command.params}
    assert names == OPTIONS.keys() | NOT_IN_THE_FILE


def test_every_option_of_check_is_one_of_export() -> None:
    assert {each.name for each in check_command.params} < OPTIONS.keys() | NOT_IN_THE_FILE


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_variable(settle: Settle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, _, wanted = OPTIONS[name]
    assert value(settle(), name) != wanted or name == "dialect"
    monkeypatch.setenv(f"CRDBEXPORT_{name.upper()}", text)
    assert value(settle(), name) == wanted


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_key_in_the_file(settle: Settle, name: str) -> None:
    _, written, wanted = OPTIONS[name]
    assert value(settle(file=f"{name} = {written}\n"), name) == wanted


@pytest.mark.parametrize("name", OPTIONS)
def test_the_variable_comes_before_the_file(settle: Settle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, _, wanted = OPTIONS[name]
    # What is in the file would be refused, if it were looked at.
    monkeypatch.setenv(f"CRDBEXPORT_{name.upper()}", text)
    assert value(settle(file=f"{name} = {{}}\n"), name) == wanted


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("concurrency", ["--concurrency", "3"]),
        ("cluster", ["--cluster", "c9"]),
        ("exclude_database", ["--exclude-database", "a"]),
        ("timeout", ["--timeout", "7"]),
        ("no_login", ["--no-login"]),
        ("verbose", ["-vv"]),
        ("quiet", ["-q"]),
        ("log_format", ["--log-format", "json"]),
        ("dialect", ["--dialect", "documented"]),
    ],
)
def test_the_command_line_comes_before_all(
    settle: Settle, monkeypatch: pytest.MonkeyPatch, name: str, given: list[str]
) -> None:
    others = {"concurrency": "5", "timeout": "5", "no_login": "0", "quiet": "0", "verbose": "1", "log_format": "text"}
    monkeypatch.setenv(f"CRDBEXPORT_{name.upper()}", others.get(name, "auto"))
    assert value(settle(*given, file=f"{name} = {{}}\n"), name) == OPTIONS[name][2]


def test_a_flag_of_the_file_is_taken_back_by_a_variable(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_NO_PLUGINS", "0")
    assert settle(file="no_plugins = true\n").config.no_plugins is False


def test_the_defaults_are_those_that_the_help_shows(settle: Settle) -> None:
    defaults = settle()
    shown = {each.name: each.default for each in export_command.params if getattr(each, "show_default", False)}
    assert set(shown) == {"dialect", "concurrency", "timeout", "log_format", "spool_limit"}
    assert all(value(defaults, name) == default for name, default in shown.items())


def test_the_file_may_come_from_a_variable(settle: Settle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("concurrency = 3\n")
    monkeypatch.setenv("CRDBEXPORT_CONFIG", str(tmp_path / "other.toml"))
    assert settle().config.concurrency == 3


def test_sinks_of_the_command_line_take_the_place_of_those_of_the_file(
    settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "[sinks.lake]\ntype = 'parquet'\npath = '/lake'\ncompression_level = 9\n"
    in_file = {"lake": {"type": "parquet", "path": "/lake", "compression_level": 9}}
    assert settle(file=file).config.sinks == in_file
    monkeypatch.setenv("CRDBEXPORT_SINK", "jsonl:/from/variable")
    assert settle(file=file).config.sinks == {"jsonl": {"type": "jsonl", "target": "/from/variable"}}
    given = settle("--sink", "a=jsonl:-", "--sink", "webhook:https://x:1/y=z", file=file).config.sinks
    assert given == {
        "a": {"type": "jsonl", "target": "-"},
        "webhook": {"type": "webhook", "target": "https://x:1/y=z"},
    }


def test_sink_options_are_laid_over_the_sinks_of_any_source(settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDBEXPORT_SINK_OPTION", "lake.row-group-rows=2000")
    file = "[sinks.lake]\ntype = 'parquet'\npath = '/a'\nrow_group_rows = 9000\n"
    assert settle(file=file).config.sinks["lake"]["row_group_rows"] == "2000"
    given = settle("--sink", "lake=parquet", "--sink-option", "lake.path=/with=equals").config.sinks
    assert given == {"lake": {"type": "parquet", "path": "/with=equals"}}


def test_a_sink_option_may_name_one_entry_of_a_table(settle: Settle) -> None:
    file = "[sinks.lake]\ntype = 'iceberg'\nproperties = { uri = '/a', 's3.region' = 'x' }\n"
    options = ["--sink-option", "lake.properties.uri=/b", "--sink-option", "lake.properties.s3.access-key=k"]
    given = settle(*options, file=file).config.sinks["lake"]["properties"]
    assert given == {"uri": "/b", "s3.region": "x", "s3.access-key": "k"}


def test_transforms_come_from_the_file_in_its_order(settle: Settle) -> None:
    file = "[[transforms]]\ntype = 'mask'\nfields = ['grantee']\n[[transforms]]\ntype = 'filter'\n"
    assert [each["type"] for each in settle(file=file).config.transforms] == ["mask", "filter"]


def test_a_password_file_of_the_command_line_comes_before_the_variable(
    settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "p")
    assert settle("--password-file", "/p").config.password is None
    found = settle(file="password_file = '/p'\n").config.password
    assert found is not None
    assert found.reveal() == "p"


def test_one_file_serves_export_and_check(settle: Settle) -> None:
    file = "cluster = 'c1'\nrun_id = 'r1'\nreport = 'r.json'\n[sinks.lake]\ntype = 'parquet'\npath = '/lake'\n"
    assert settle(file=file, command=check_command).config.cluster == "c1"
    with pytest.raises(ConfigError, match="did you mean 'run_id'"):
        settle(file="run_idd = 'r1'\n", command=check_command)


def test_every_option_tells_what_it_is_for() -> None:
    with click.Context(cli) as context:
        commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    options = [each for command in commands if command for each in command.params if isinstance(each, click.Option)]
    assert len(options) > 40
    assert all(each.help for each in options)
