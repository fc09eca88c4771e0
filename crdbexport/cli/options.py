"""The options that `export` and `check` share. Each has a variable CRDBEXPORT_<OPTION> and a key in the TOML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from crdbexport.records import GAP_REASONS, ON_REQUEST, STREAMS

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option with the environment variable that its long name gives."""
    long = next(name for name in names if name.startswith("--"))
    variable = "CRDBEXPORT_" + long.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **settings)


CLUSTER_OPTIONS = (
    option(
        "--url",
        multiple=True,
        metavar="URL",
        help="Base URL of a node; repeat it for several of one cluster.",
    ),
    option("--cluster", metavar="NAME", default="", help="The cluster's name; it stands in every record."),
    option("--sandbox", is_flag=True, help="Read a simulated cluster instead; nothing else is needed."),
    option("--username", metavar="USER", help="SQL role to log in as; its password is in CRDBEXPORT_PASSWORD."),
    option("--password-file", type=FILE, metavar="FILE", help="Read the password from the first line of FILE."),
    option("--no-login", is_flag=True, help="The cluster asks for no login."),
    option(
        "--ca-cert",
        type=FILE,
        metavar="FILE",
        help="The authority that signed the cluster's certificate (PEM).",
    ),
    option("--insecure-http", is_flag=True, help="Let the password travel unencrypted to another host."),
    option("--trust-env", is_flag=True, help="Use proxies that the environment names."),
    option(
        "--dialect",
        type=click.Choice(["auto", "documented", "native"]),
        default="auto",
        show_default=True,
        help="The form in which the server answers; auto finds out.",
    ),
    option("--concurrency", type=int, default=8, show_default=True, metavar="N", help="Most requests at a time."),
    option("--max-rps", type=float, metavar="R", help="Most requests a second."),
    option(
        "--timeout",
        type=float,
        default=120.0,
        show_default=True,
        metavar="S",
        help="Seconds for one request.",
    ),
)
SELECTION_OPTIONS = (
    option(
        "--stream",
        multiple=True,
        type=click.Choice(list(STREAMS)),
        help="Export this stream only; repeatable.",
    ),
    option(
        "--include",
        multiple=True,
        type=click.Choice(list(ON_REQUEST)),
        help="Export this field too, which may hold users' data; repeatable.",
    ),
    option("--database", multiple=True, metavar="GLOB", help="Read only these databases; repeatable."),
    option("--exclude-database", multiple=True, metavar="GLOB", help="Leave these databases out; repeatable."),
)
SINK_OPTIONS = (
    option(
        "--sink",
        multiple=True,
        metavar="[NAME=]TYPE[:TARGET]",
        help="Where records go, such as parquet:./lake; repeatable.",
    ),
    option("--sink-option", multiple=True, metavar="NAME.KEY=VALUE", help="An option of a sink; repeatable."),
)
ALLOW_GAPS = option(
    "--allow-gaps",
    multiple=True,
    type=click.Choice(GAP_REASONS),
    metavar="REASON",
    help="A gap of this reason does not make the run incomplete; repeatable.",
)
ALLOW_SHRINK = option(
    "--allow-shrink", is_flag=True, help="A stream that shrank by more than half does not make it incomplete."
)
REPORT = option("--report", metavar="FILE", help="Write the run report to FILE; - is standard output.")
STATE_DIR = option("--state-dir", type=DIRECTORY, metavar="DIR", help="Where runs keep their spool and state.")
KEEP_SPOOL = option("--keep-spool", is_flag=True, help="Keep the records when all sinks have them, for `runs deliver`.")
RUN_OPTIONS = (
    option(
        "--run-id",
        metavar="ID",
        help="Name of the run; the same one again continues it, or does nothing twice.",
    ),
    option("--logical-time", metavar="T", help="Date or time the snapshot stands for; default: today, UTC."),
    ALLOW_GAPS,
    ALLOW_SHRINK,
    option("--strict", is_flag=True, help="Publish nothing at all if a sink refuses a record."),
    option("--refresh-stats", is_flag=True, help="Have the server measure its tables first, if that is long ago."),
    REPORT,
    STATE_DIR,
    KEEP_SPOOL,
    option(
        "--spool-limit",
        type=int,
        default=10_240,
        show_default=True,
        metavar="MIB",
        help="Most space for the records of a run on disk.",
    ),
)
PLUGIN_OPTIONS = (
    option(
        "--plugin",
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="Load a plugin of one Python file as well; repeatable.",
    ),
    option("--no-plugins", is_flag=True, help="Leave out all plugins but the built-in ones."),
)
COMMON_OPTIONS = (
    option("--config", type=FILE, metavar="FILE", help="Read options from a TOML file."),
    *PLUGIN_OPTIONS,
    option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the log.",
    ),
    option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    option("-v", "--verbose", count=True, help="Say more; twice for everything."),
)


def with_options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Adds the options to a command, in the order in which its help shall list them."""

    def add(command: F) -> F:
        for each in reversed([each for group in groups for each in group]):
            command = each(command)
        return command

    return add
