"""`crdbexport plugins`: what is installed, from where, with which options."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import say, say_json

if TYPE_CHECKING:
    from crdbexport.plugin_manager import PluginInfo
    from crdbexport.testing.runner import Result

INCOMPLETE = 3


@click.group("plugins", short_help="Show what is installed, and try it.")
def command() -> None:
    """Show the installed plugins, sinks and transforms, and try sinks."""


@command.command("list", short_help="List plugins and what they offer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--no-plugins", is_flag=True, help="Leave out all but the built-in ones.")
def list_plugins(as_json: bool, no_plugins: bool) -> None:
    """List every plugin with its distribution, version, state, and what it offers."""
    infos = _loaded(no_plugins).infos
    if as_json:
        say_json(infos)
        return
    for info in infos:
        say(f"{info.name}  {info.label}  {info.location}  {info.state}")
        for what, names in (("sinks", info.sinks), ("transforms", info.transforms)):
            if names:
                say(f"  {what}: {', '.join(names)}")
        if info.error:
            say(f"  {info.error}")


@command.command("show", short_help="Show a sink type or transform with its options.")
@click.argument("name")
def show(name: str) -> None:
    """Show the sink type or transform NAME: where it comes from and which options it takes."""
    import msgspec

    from crdbexport.errors import PluginError
    from crdbexport.sinks.base import target_field

    plugins = _loaded(False)
    if name in plugins.transforms:
        offer: Any = plugins.transforms[name]
        target = ""
    else:
        offer = plugins.sink(name)
        target = target_field(offer.kind.Config)
    if not issubclass(offer.kind.Config, msgspec.Struct):
        raise PluginError(f"{name}: its Config is not a msgspec struct", plugin=offer.plugin.label)
    say(f"{name}: {_first_sentence(offer.kind)}")
    say(f"  from {_origin(offer.plugin)}")
    for field in msgspec.structs.fields(offer.kind.Config):
        needed = "required" if field.required else f"default {field.default!r}"
        mark = "  (TARGET)" if field.name == target else ""
        say(f"  {field.name:<18} {_type_name(field.type):<24} {needed}{mark}")


@command.command("conformance", short_help="Try a sink type with every check of the kit.")
@click.argument("sink_type", metavar="TYPE")
@click.option("--target", default="", help="Where the sink writes to; a directory, for sinks that write files.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the sink; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def conformance(sink_type: str, target: str, options: tuple[str, ...], as_json: bool) -> None:
    """Try the sink type TYPE, or the conformance class module:Class, with every check of `crdbexport.testing`.

    Exit code 0: all checks pass that apply; 3: some do not.
    """
    from crdbexport.testing.conformance import load_conformance
    from crdbexport.testing.runner import run_checks

    kit = load_conformance(sink_type if ":" in sink_type else _conformance_of(sink_type))
    kit.target, kit.options = target, dict(_pair(each) for each in options)
    _leave_logs_alone()
    results = run_checks(kit, told=(lambda result: None) if as_json else _tell_result)
    failed = [each for each in results if each.verdict == "failed"]
    if as_json:
        say_json({"sink": sink_type, "capabilities": kit.capabilities, "checks": results})
    else:
        apply = [each for each in results if each.verdict != "not applicable"]
        say(f"{len(apply) - len(failed)} of {len(apply)} checks passed, {len(results) - len(apply)} do not apply")
    if failed:
        sys.exit(INCOMPLETE)


def _conformance_of(type_name: str) -> str:
    offer = _loaded(False).sink(type_name)
    where: str = getattr(offer.kind, "conformance", "")
    if not where:
        from crdbexport.errors import ConfigError

        raise ConfigError(
            f"{type_name} of {offer.plugin.label} offers no conformance class; derive one from "
            "crdbexport.testing.SinkConformance and give it as module:Class"
        )
    return where


def _pair(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{option!r} is not KEY=VALUE", param_hint="--option")
    return key, value


def _leave_logs_alone() -> None:
    """Sinks that are made to fail are no news."""
    import logging

    logging.getLogger().addHandler(logging.NullHandler())


def _tell_result(result: Result) -> None:
    reason = f": {result.reason}" if result.reason else ""
    say(f"{result.kind:<10} {result.verdict:<15} {result.name}{reason}")


def _loaded(no_plugins: bool) -> Any:
    import logging

    from crdbexport.plugin_manager import load_plugins

    # What is broken is part of the list.
    logging.getLogger("crdbexport").setLevel(logging.ERROR)
    return load_plugins(third_party=not no_plugins)


def _origin(info: PluginInfo) -> str:
    return f"{info.label} ({info.location})"


def _first_sentence(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n")[0]


def _type_name(kind: Any) -> str:
    from typing import get_args, get_origin

    if hasattr(kind, "__metadata__"):
        return _type_name(get_args(kind)[0])
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind).replace("typing.", "")
