"""`crdbexport plugins list` and `show`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from crdbexport.cli.logs import say, say_json
from crdbexport.cli.options import PLUGIN_OPTIONS, with_options
from crdbexport.cli.plugins.loading import loaded, redaction

if TYPE_CHECKING:
    from msgspec.structs import FieldInfo

    from crdbexport.plugin_info import Offer, PluginInfo
    from crdbexport.plugin_manager import Plugins


@click.command("list", short_help="List plugins and what they offer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@with_options(PLUGIN_OPTIONS)
def list_plugins(as_json: bool, no_plugins: bool, plugin: tuple[Path, ...]) -> None:
    """List every plugin with its distribution, version, location, state, and what it offers.

    The state is loaded; blocked (by CRDBEXPORT_BLOCK_PLUGINS or --no-plugins), not allowed (there is a
    CRDBEXPORT_LOAD_PLUGINS without it), which are not imported; or broken, with the cause.
    """
    plugins = loaded(plugin, no_plugins=no_plugins)
    listed = [_listed(info, plugins) for info in plugins.infos]
    if as_json:
        say_json(listed)
        return
    for each in listed:
        say(f"{each['name']}  {_label(each)}  {each['location']}  {each['state']}")
        for line in _details(each):
            say(f"  {line}")


@click.command("show", short_help="Show a sink type or transform with its options.")
@click.argument("name")
@with_options(PLUGIN_OPTIONS)
def show(name: str, no_plugins: bool, plugin: tuple[Path, ...]) -> None:
    """Show the sink type or transform NAME: where it comes from and which options it takes."""
    import msgspec

    from crdbexport.errors import PluginError
    from crdbexport.sinks.base import target_field

    plugins = loaded(plugin, no_plugins=no_plugins)
    offer: Offer[Any] = plugins.transforms[name] if name in plugins.transforms else plugins.sink(name)
    target = "" if name in plugins.transforms else target_field(offer.kind.Config)
    if not issubclass(offer.kind.Config, msgspec.Struct):
        raise PluginError(f"{name}: its Config is not a msgspec struct", plugin=offer.plugin.label)
    say(f"{name}: {_first_sentence(offer.kind)}")
    say(f"  from {offer.plugin.label} ({offer.plugin.location})")
    options = [
        (field.name, _type_name(field.type), _default(field) + ("  (TARGET)" if field.name == target else ""))
        for field in msgspec.structs.fields(offer.kind.Config)
    ]
    widths = [max(map(len, column)) for column in zip(*options, strict=True)]
    for option in options:
        say("  " + " ".join(cell.ljust(width) for cell, width in zip(option, widths, strict=True)).rstrip())


def _listed(info: PluginInfo, plugins: Plugins) -> dict[str, Any]:
    """All that is told of a plugin, to people and to programs."""
    from dataclasses import asdict

    kinds: dict[str, Any] = {name: plugins.sinks[name].kind for name in info.sinks}
    kinds |= {name: plugins.transforms[name].kind for name in info.transforms}
    return {
        **asdict(info),
        "error": redaction()(info.error),
        "options": {name: list(kind.Config.__struct_fields__) for name, kind in kinds.items()},
    }


def _label(each: dict[str, Any]) -> str:
    return f"{each['distribution']} {each['version']}".strip()


def _details(each: dict[str, Any]) -> Iterator[str]:
    for what in ("sinks", "transforms"):
        if each[what]:
            yield f"{what}: {', '.join(each[what])}"
    for name, options in each["options"].items():
        yield f"options of {name}: {', '.join(options) or 'none'}"
    if each["hooks"]:
        yield f"hooks: {', '.join(each['hooks'])}"
    yield from each["deprecated"]
    if each["error"]:
        yield each["error"]


def _first_sentence(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n")[0]


def _default(field: FieldInfo) -> str:
    """What an option is when it is left out; None and what is empty are as good as nothing."""
    if field.required:
        return "required"
    from msgspec import NODEFAULT

    # What is made anew for each sink is empty at first.
    is_nothing = field.default is None or field.default is NODEFAULT
    return "default none" if is_nothing else f"default {field.default!r}"


def _type_name(kind: Any) -> str:
    """The type in the words of Python, without the modules and the names that only typing knows."""
    origin, arguments = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(_type_name(each) for each in arguments if each is not NoneType)
    if arguments:
        return f"{_type_name(origin)}[{', '.join(map(_type_name, arguments))}]"
    return kind.__name__ if isinstance(kind, type) else "..." if kind is ... else str(kind).replace("typing.", "")
