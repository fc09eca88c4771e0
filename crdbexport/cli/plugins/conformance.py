"""`crdbexport plugins conformance`: a sink type tried with every check of the kit."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crdbexport.cli.logs import say, say_json
from crdbexport.cli.options import PLUGIN_OPTIONS, with_options
from crdbexport.cli.plugins.loading import loaded
from crdbexport.errors import ConfigError

if TYPE_CHECKING:
    from crdbexport.testing.runner import Result

INCOMPLETE = 3


@click.command("conformance", short_help="Try a sink type with every check of the kit.")
@click.argument("sink_type", metavar="TYPE")
@click.option("--target", default="", help="Where the sink writes to; a directory, for sinks that write files.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the sink; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@with_options(PLUGIN_OPTIONS)
def conformance(
    sink_type: str,
    target: str,
    options: tuple[str, ...],
    as_json: bool,
    no_plugins: bool,
    plugin: tuple[Path, ...],
) -> None:
    """Try the sink type TYPE, or the conformance class module:Class, with every check of `crdbexport.testing`.

    Exit code 0: all checks pass that apply; 3: some do not.
    """
    from crdbexport.testing.conformance import load_conformance
    from crdbexport.testing.runner import run_checks

    named = ":" in sink_type
    kit = load_conformance(sink_type if named else conformance_of(sink_type, plugin, no_plugins=no_plugins))
    kit.target, kit.options = target, dict(_pair(each) for each in options)
    # Sinks that are made to fail are no news.
    logging.getLogger().addHandler(logging.NullHandler())
    for each in logging.getLogger("crdbexport").handlers:
        each.setLevel(logging.ERROR)  # One check has every level logged.
    results = run_checks(kit, told=(lambda result: None) if as_json else _tell_result)
    failed = [each for each in results if each.verdict == "failed"]
    if as_json:
        say_json({"sink": sink_type, "capabilities": kit.capabilities, "checks": results})
    else:
        apply = [each for each in results if each.verdict != "not applicable"]
        say(f"{len(apply) - len(failed)} of {len(apply)} checks passed, {len(results) - len(apply)} do not apply")
    if failed:
        sys.exit(INCOMPLETE)


def conformance_of(type_name: str, files: tuple[Path, ...] = (), *, no_plugins: bool = False) -> str:
    """Where a sink type says that its conformance class is, as `module:Class`."""
    offer = loaded(files, no_plugins=no_plugins).sink(type_name)
    where: str = getattr(offer.kind, "conformance", "")
    if not where:
        raise ConfigError(
            f"{type_name} of {offer.plugin.label} offers no conformance class; derive one from "
            "crdbexport.testing.SinkConformance and give it as module:Class"
        )
    # `:Class` is one beside the sink: a file does not know the name that it is loaded under.
    return f"{offer.kind.__module__}{where}" if where.startswith(":") else where


def _pair(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{option!r} is not KEY=VALUE", param_hint="--option")
    return key, value


def _tell_result(result: Result) -> None:
    reason = f": {result.reason}" if result.reason else ""
    say(f"{result.kind:<10} {result.verdict:<15} {result.name}{reason}")
