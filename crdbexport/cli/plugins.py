"""`crdbexport plugins`: what is installed, from where, with which options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import one_line

if TYPE_CHECKING:
    from crdbexport.plugin_manager import PluginInfo


@click.group("plugins", short_help="Show what is installed.")
def command() -> None:
    """Show the installed plugins, sinks and transforms."""


@command.command("list", short_help="List plugins and what they offer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--no-plugins", is_flag=True, help="Leave out all but the built-in ones.")
def list_plugins(as_json: bool, no_plugins: bool) -> None:
    """List every plugin with its distribution, version, state, and what it offers."""
    infos = _loaded(no_plugins).infos
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(infos), indent=2).decode())
        return
    for info in infos:
        click.echo(f"{info.name}  {info.label}  {info.location}  {info.state}")
        for what, names in (("sinks", info.sinks), ("transforms", info.transforms)):
            if names:
                click.echo(f"  {what}: {', '.join(names)}")
        if info.error:
            click.echo(f"  {one_line(info.error)}")


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
    click.echo(f"{name}: {_first_sentence(offer.kind)}")
    click.echo(f"  from {_origin(offer.plugin)}")
    for field in msgspec.structs.fields(offer.kind.Config):
        needed = "required" if field.required else f"default {field.default!r}"
        mark = "  (TARGET)" if field.name == target else ""
        click.echo(f"  {field.name:<18} {_type_name(field.type):<24} {needed}{mark}")


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
