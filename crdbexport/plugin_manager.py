"""How plugins come in: each entry point loaded under guard, each failure named, nothing registered by half."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

import pluggy

from crdbexport.errors import PluginError
from crdbexport.hookspecs import PROJECT_NAME, ProcessHooks, SinkHooks
from crdbexport.plugin_choice import choice_of, distribution_of, is_builtin, metadata_of
from crdbexport.sinks.base import API_VERSION, Sink, SinkConfig
from crdbexport.transforms.base import Transform, TransformConfig

SINK_METHODS = ("preflight", "open", "write", "commit", "abort")
# A plugin must not end the process by any door. KeyboardInterrupt stays: at load time it is the user's.
PLUGIN_FAILURES = (Exception, SystemExit)

log = logging.getLogger(__name__)
T = TypeVar("T")
Kind = TypeVar("Kind")


@dataclass
class PluginInfo:
    """One plugin as it is told to the user: where it comes from, and what became of it."""

    name: str
    distribution: str
    version: str
    location: str
    state: Literal["loaded", "blocked", "broken"] = "loaded"
    error: str = ""
    sinks: list[str] = field(default_factory=list)
    transforms: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}".strip()

    @property
    def key(self) -> str:
        """What pluggy knows it by: two distributions may name their entry points alike."""
        return f"{self.distribution}/{self.name}"


@dataclass(frozen=True)
class Offer(Generic[Kind]):
    """A sink type or transform, and the plugin that offers it."""

    kind: type[Kind]
    plugin: PluginInfo


class Plugins:
    """All plugins of this process and what they offer."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(PROJECT_NAME)
        self.manager.add_hookspecs(ProcessHooks)
        self.infos: list[PluginInfo] = []
        self.sinks: dict[str, Offer[Sink]] = {}
        self.transforms: dict[str, Offer[Transform]] = {}

    def sink(self, type_name: str) -> Offer[Sink]:
        return self._offered(self.sinks, type_name, "sink type")

    def transform(self, type_name: str) -> Offer[Transform]:
        return self._offered(self.transforms, type_name, "transform")

    def observers(self, hook: str) -> list[tuple[PluginInfo, Callable[..., Any]]]:
        """Each plugin's own implementation of an observer hook, by plugin name."""
        found: list[tuple[PluginInfo, Callable[..., Any]]] = []
        for info in self.infos:
            plugin = self.manager.get_plugin(info.key)
            if hook in info.hooks and plugin is not None:
                others = [each for each in self.manager.get_plugins() if each is not plugin]
                found.append((info, self.manager.subset_hook_caller(hook, others)))
        return found

    def load(self, entry_point: EntryPoint) -> None:
        """Load one entry point and take what it offers; whatever fails is kept as that plugin's error."""
        info = _described(entry_point)
        self.infos.append(info)
        try:
            self._register(entry_point.load(), info)
        except PLUGIN_FAILURES as error:
            self._take_out(info, error)

    def add(self, plugin: object, name: str) -> None:
        """Take a plugin that is already imported; raises `PluginError` where `load` would only note it."""
        info = PluginInfo(name, name, "", str(plugin))
        self.infos.append(info)
        try:
            self._register(plugin, info)
        except PLUGIN_FAILURES as error:
            self._take_out(info, error)
            raise PluginError(f"plugin {name}: {info.error}", plugin=name) from error

    def _register(self, plugin: Any, info: PluginInfo) -> None:
        self.manager.register(plugin, info.key)
        info.hooks = sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or [])
        self._refuse_unknown_hooks(info)
        sinks: dict[str, type[Sink]] = {}
        transforms: dict[str, type[Transform]] = {}
        self._call_own(plugin, "crdbexport_register_sinks", self._registrar(sinks, self.sinks, Sink))
        self._call_own(
            plugin, "crdbexport_register_transforms", self._registrar(transforms, self.transforms, Transform)
        )
        self.sinks.update({name: Offer(kind, info) for name, kind in sinks.items()})
        self.transforms.update({name: Offer(kind, info) for name, kind in transforms.items()})
        info.sinks, info.transforms = sorted(sinks), sorted(transforms)

    def _refuse_unknown_hooks(self, info: PluginInfo) -> None:
        # pluggy itself takes a misspelt hook without a word.
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            unknown = [name for name in info.hooks if not hasattr(ProcessHooks, name)]
            raise PluginError(_misspelt(unknown[0])) from error

    def _call_own(self, plugin: object, hook: str, register: Callable[[str, type], None]) -> None:
        others = [each for each in self.manager.get_plugins() if each is not plugin]
        self.manager.subset_hook_caller(hook, others)(register=register)

    @staticmethod
    def _registrar(
        offered: dict[str, type[Kind]], taken: dict[str, Offer[Kind]], base: type[Kind]
    ) -> Callable[[str, type], None]:
        def register(name: str, kind: type) -> None:
            if not (isinstance(kind, type) and issubclass(kind, base)):
                raise PluginError(f"{name!r} is not a subclass of crdbexport.{base.__name__}")
            if name in taken:
                raise PluginError(f"{name!r} is already offered by {taken[name].plugin.label}")
            if name in offered:
                raise PluginError(f"{name!r} is offered twice")
            _check_kind(name, kind)
            offered[name] = kind

        return register

    def _take_out(self, info: PluginInfo, error: BaseException) -> None:
        # pluggy keeps the name of a plugin whose registration failed half-way.
        if self.manager.has_plugin(info.key):
            self.manager.unregister(name=info.key)
        info.state, info.error, info.hooks = "broken", _one_line(error), []
        log.warning("plugin %s (%s) is left out: %s", info.name, info.label, info.error)

    def _offered(self, offers: dict[str, Offer[Kind]], name: str, what: str) -> Offer[Kind]:
        if name in offers:
            return offers[name]
        close = difflib.get_close_matches(name, offers, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        left_out = "".join(
            f"; plugin {info.name} ({info.label}) is {info.state}{': ' + info.error if info.error else ''}"
            for info in self.infos
            if info.state != "loaded"
        )
        raise PluginError(f"no {what} {name!r}; {hint}installed: {', '.join(sorted(offers))}{left_out}")


def load_plugins(*, third_party: bool = True, extra: Sequence[tuple[str, object]] = ()) -> Plugins:
    """Every plugin that is installed and allowed, the built-in ones first, then by distribution.

    `third_party=False` takes the built-in ones alone. The variables CRDBEXPORT_LOAD_PLUGINS and
    CRDBEXPORT_BLOCK_PLUGINS name plugins, by entry point or distribution, that alone or never come in; what is blocked
    is not even imported. Raises `PluginError` where they seem to be misspelt.
    """
    plugins = Plugins()
    installed = sorted(entry_points(group=PROJECT_NAME), key=_load_order)
    let_in = choice_of(installed) if third_party else is_builtin
    for entry_point in installed:
        if let_in(entry_point):
            plugins.load(entry_point)
        else:
            info = _described(entry_point)
            info.state = "blocked"
            plugins.infos.append(info)
    for name, plugin in extra:
        plugins.add(plugin, name)
    return plugins


class SinkPluginManager(pluggy.PluginManager):
    """A lane's own plugin manager, in which one sink lives: its methods are the hook implementations."""

    def __init__(self, sink: Sink, label: str) -> None:
        super().__init__(PROJECT_NAME)
        self.add_hookspecs(SinkHooks)
        try:
            self.register(sink, label)
        except pluggy.PluginValidationError as error:
            raise PluginError(f"sink {label}: {_one_line(error)}", plugin=label) from error

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """A sink needs no decorators: what has the name of a hook is one."""
        if name not in SINK_METHODS:
            return None
        return {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": False,
            "specname": None,
        }


def _check_kind(name: str, kind: type) -> None:
    options = SinkConfig if issubclass(kind, Sink) else TransformConfig
    declared = getattr(kind, "Config", None)
    if not (isinstance(declared, type) and issubclass(declared, options)):
        raise PluginError(f"{name!r} has a Config that is not a subclass of crdbexport.{options.__name__}")
    if not issubclass(kind, Sink):
        return
    if kind.api_version != API_VERSION:
        raise PluginError(
            f"sink {name!r} wants plugin API {kind.api_version}, and this crdbexport has {API_VERSION}; "
            "install versions that fit together"
        )
    if kind.write is Sink.write:
        raise PluginError(f"sink {name!r} does not define write(self, batch)")
    # A coroutine that nobody awaits would pass for a batch that was written.
    waiting = [method for method in SINK_METHODS if inspect.iscoroutinefunction(getattr(kind, method))]
    if waiting:
        raise PluginError(
            f"sink {name!r} defines {waiting[0]} with async def; a sink has a thread of its own, and plain methods"
        )


def _misspelt(hook: str) -> str:
    known = [name for name in vars(ProcessHooks) if name.startswith(PROJECT_NAME)]
    close = difflib.get_close_matches(hook, known, n=1, cutoff=0.5)
    return f"there is no hook {hook!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _described(entry_point: EntryPoint) -> PluginInfo:
    version = metadata_of(entry_point, "Version")
    return PluginInfo(entry_point.name, distribution_of(entry_point), version, entry_point.value)


def _load_order(entry_point: EntryPoint) -> tuple[bool, str, str]:
    return (not is_builtin(entry_point), distribution_of(entry_point), entry_point.name)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
