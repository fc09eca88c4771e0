"""`crdbexport plugins new`: a whole distribution to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import say
from crdbexport.cli.options import DIRECTORY
from crdbexport.cli.plugins.loading import loaded
from crdbexport.errors import ConfigError

if TYPE_CHECKING:
    from crdbexport.plugin_info import Offer
    from crdbexport.scaffold import Naming, PluginKind


@click.command("new", short_help="Begin a plugin: a whole distribution with tests.")
@click.argument("name")
@click.option("--kind", type=click.Choice(["sink", "transform", "observer"]), required=True, help="What it shall be.")
@click.option("--output", type=DIRECTORY, metavar="DIR", help="Where to; default: ./crdbexport-NAME.")
def new(name: str, kind: PluginKind, output: Path | None) -> None:
    """Write a plugin distribution that works: code, config, tests, types, CI. Needs the extra `new`.

    The distribution is called crdbexport-NAME, and the sink type or transform NAME.
    """
    import shlex

    from crdbexport.scaffold import naming, write_distribution

    names = naming(name, kind)
    _refuse_taken(names)
    destination = output or Path(names.distribution)
    for path in write_distribution(names, destination):
        say(str(path))
    say(f"next: cd {shlex.quote(str(destination))} && pip install -e '.[dev]' && pytest", err=True)


def _refuse_taken(names: Naming) -> None:
    from crdbexport.plugin_choice import canonical

    plugins = loaded()
    offered: dict[str, Mapping[str, Offer[Any]]] = {"sink": plugins.sinks, "transform": plugins.transforms}
    offers = offered.get(names.kind, {})
    if names.type in offers:
        owner = offers[names.type].plugin.label
        raise ConfigError(f"{names.kind} {names.type!r} is already offered by {owner}; take another name")
    for info in plugins.infos:
        if canonical(info.distribution) == names.distribution:
            raise ConfigError(f"{info.label} is already installed; take another name")
