"""Builds the parts of a run from its configuration: sinks in their lanes, transforms in their chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from crdbexport.config import ExportConfig
from crdbexport.errors import ConfigError, CrdbExportError, PluginError
from crdbexport.options import convert
from crdbexport.pipeline.lane import LaneSink
from crdbexport.pipeline.transforming import NamedTransform, TransformChain
from crdbexport.plugin_manager import PLUGIN_FAILURES, Plugins, SinkPluginManager
from crdbexport.sinks.base import Sink, SinkConfig, target_field
from crdbexport.transforms.base import Transform


def build_sinks(config: ExportConfig, plugins: Plugins) -> list[LaneSink]:
    """The configured sinks; raises `ConfigError` or `PluginError` that names the sink and the option."""
    if not config.sinks:
        raise ConfigError("no sink: say where the records go with --sink TYPE:TARGET, such as --sink parquet:./lake")
    sinks = [_build_sink(name, dict(options), plugins) for name, options in config.sinks.items()]
    _refuse_shared_directories(sinks)
    return sinks


def build_chain(config: ExportConfig, plugins: Plugins) -> TransformChain:
    """The configured transforms, in their order."""
    return TransformChain([_build_transform(each, plugins) for each in config.transforms])


def secrets_of(sinks: Sequence[LaneSink], chain: TransformChain) -> Iterator[str]:
    """What sinks and transforms were given that must not be shown."""
    for sink in sinks:
        yield from _secrets(sink.sink, f"sink {sink.name}", sink.plugin)
    for each in chain.transforms:
        yield from _secrets(each.transform, f"transform {each.name}", each.plugin)


def _secrets(part: Sink | Transform, what: str, plugin: str) -> list[str]:
    trouble = f"{what} of {plugin} cannot tell its secrets"
    secrets: list[str] = _asked(lambda: [str(each) for each in part.secrets()], trouble, plugin)
    return secrets


def _build_sink(name: str, options: dict[str, Any], plugins: Plugins) -> LaneSink:
    type_name = _type(options, f"sink {name}")
    offer = plugins.sink(type_name)
    options = _with_target(name, type_name, offer.kind, options)
    settings = convert(options, offer.kind.Config, where=f"sink {name} ({type_name})")
    label = offer.plugin.label
    sink = _made(name, offer.kind, settings, label)
    target: str = _asked(sink.shown_target, f"sink {name} of {label} cannot tell its target", label)
    return LaneSink(name, type_name, target, label, sink, SinkPluginManager(sink, f"{name} ({label})").hook)


def _made(name: str, kind: type[Sink], settings: SinkConfig, label: str) -> Sink:
    """The sink; what it says of its options is told with its name."""
    try:
        sink: Sink = _asked(lambda: kind(settings), f"sink {name} of {label} cannot be made", label)
    except PluginError:
        raise
    except ConfigError as error:
        if str(error).startswith((f"sink {name}:", f"sink {name} ")):
            raise
        raise ConfigError(f"sink {name}: {error}") from error
    return sink


def _build_transform(options: Mapping[str, Any], plugins: Plugins) -> NamedTransform:
    options = dict(options)
    type_name = _type(options, "a transform")
    offer = plugins.transform(type_name)
    settings = convert(options, offer.kind.Config, where=f"transform {type_name}")
    label = offer.plugin.label
    transform: Transform = _asked(
        lambda: offer.kind(settings), f"transform {type_name} of {label} cannot be made", label
    )
    return NamedTransform(type_name, label, transform)


def _type(options: dict[str, Any], what: str) -> str:
    type_name = options.pop("type", None)
    if not isinstance(type_name, str):
        raise ConfigError(f'{what} needs a type, such as type = "parquet"; see `crdbexport plugins list`')
    return type_name


def _with_target(name: str, type_name: str, kind: type[Sink], options: dict[str, Any]) -> dict[str, Any]:
    """The options with the target under the name of the option that it fills."""
    option = target_field(kind.Config)
    if "target" not in options or option == "target":
        if option in _required(kind) and option not in options:
            raise ConfigError(f"sink {name} needs a {option}: --sink {type_name}:{option.upper()}")
        return options
    target = options["target"]
    options = {key: value for key, value in options.items() if key != "target"}
    if not option:
        raise ConfigError(f"sink {name} takes no target, but was given one")
    if option in options:
        raise ConfigError(f"sink {name} is given {option!r} twice, as its target and as an option")
    return {**options, option: target}


def _required(kind: type[Sink]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind.Config) if field.required}


def _asked(call: Callable[[], Any], trouble: str, plugin: str) -> Any:
    """What a plugin's own code answers; whatever it raises is told as that plugin's trouble."""
    try:
        return call()
    except CrdbExportError:
        raise
    except PLUGIN_FAILURES as error:
        raise PluginError(f"{trouble}: {type(error).__name__}: {error}", plugin=plugin) from error


class _Claim(NamedTuple):
    sink: str
    directory: Path


def _refuse_shared_directories(sinks: Sequence[LaneSink]) -> None:
    claims: list[_Claim] = []
    for mine in (claim for sink in sinks for claim in _claims(sink)):
        for other in claims:
            if mine.directory.is_relative_to(other.directory) or other.directory.is_relative_to(mine.directory):
                raise ConfigError(
                    f"sinks {other.sink} and {mine.sink} would share {mine.directory}; give each its own directory"
                )
        claims.append(mine)


def _claims(sink: LaneSink) -> list[_Claim]:
    trouble = f"sink {sink.name} of {sink.plugin} cannot tell its directories"
    directories = _asked(lambda: [Path(each).resolve() for each in sink.sink.directories()], trouble, sink.plugin)
    return [_Claim(sink.name, each) for each in directories]
