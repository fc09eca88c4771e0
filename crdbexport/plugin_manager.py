"""How plugins come in: each entry point loaded under guard, each failure named, nothing registered by half."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from crdbexport.errors import PluginError
from crdbexport.hookspecs import PROJECT_NAME, DeprecatedHookWarning, ProcessHooks, SinkHooks
from crdbexport.plugin_checks import SINK_METHODS, check_kind, misspelt, one_line
from crdbexport.plugin_choice import choice_of, distribution_of, is_builtin, names_of
from crdbexport.plugin_files import check_files, forget_file, imported_file, place_of
from crdbexport.plugin_info import Offer, PluginInfo, info_of_entry_point, info_of_file
from crdbexport.sinks.base import Sink
from crdbexport.transforms.base import Transform

# A plugin must not end the process by any door. KeyboardInterrupt stays: at load time it is the user's.
PLUGIN_FAILURES = (Exception, SystemExit)

log = logging.getLogger(__name__)
Kind = TypeVar("Kind")


class Plugins:
    """All plugins of this process and what they offer; `hooks` holds the specifications of what they implement."""

    def __init__(self, hooks: type = ProcessHooks) -> None:
        self.manager = pluggy.PluginManager(PROJECT_NAME)
        self.manager.add_hookspecs(hooks)
        self._hooks = hooks
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
        info = info_of_entry_point(entry_point)
        try:
            self._take(info, entry_point.load)
        except PLUGIN_FAILURES:
            log.warning("plugin %s (%s) is left out: %s", info.name, info.label, info.error)

    def load_file(self, path: Path) -> None:
        """Take a plugin of one file; raises `PluginError` with the file and the line that is at fault."""
        info = info_of_file(path)
        try:
            self._take(info, lambda: imported_file(path))
            if not info.hooks:
                raise PluginError("it holds no hook; mark a function with @crdbexport.hookimpl, see docs/plugins.md")
        except PLUGIN_FAILURES as error:
            place = place_of(error, path)
            forget_file(path)
            raise PluginError(f"{place}: {one_line(error)}", plugin=info.label) from error

    def add(self, plugin: object, name: str) -> None:
        """Take a plugin that is already imported; raises `PluginError` where `load` would only note it."""
        info = PluginInfo(name, name, "", str(plugin))
        try:
            self._take(info, lambda: plugin)
        except PLUGIN_FAILURES as error:
            raise PluginError(f"plugin {name}: {info.error}", plugin=name) from error

    def _take(self, info: PluginInfo, load: Callable[[], object]) -> None:
        """Register what `load` answers, all of it or nothing."""
        self.infos.append(info)
        try:
            self._register(load(), info)
        except PLUGIN_FAILURES as error:
            # pluggy keeps the name of a plugin whose registration failed half-way.
            if self.manager.has_plugin(info.key):
                self.manager.unregister(name=info.key)
            info.state, info.error, info.hooks = "broken", one_line(error), []
            raise

    def _register(self, plugin: Any, info: PluginInfo) -> None:
        with _noting_deprecations(info):
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
            known = [name for name in dir(self._hooks) if name.startswith(PROJECT_NAME)]
            unknown = [name for name in info.hooks if name not in known]
            raise PluginError(misspelt(unknown[0], known)) from error

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
            check_kind(name, kind)
            offered[name] = kind

        return register

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


def load_plugins(
    *, third_party: bool = True, files: Sequence[Path] = (), extra: Sequence[tuple[str, object]] = ()
) -> Plugins:
    """Every plugin that is installed and allowed, the built-in ones first, then by distribution; then `files`.

    `third_party=False` takes the built-in ones alone. The variables CRDBEXPORT_LOAD_PLUGINS and
    CRDBEXPORT_BLOCK_PLUGINS name plugins, by entry point, distribution or file, that alone or never come in; what is
    blocked is not even imported. Raises `PluginError` where they seem to be misspelt, and for a broken file.
    """
    plugins = Plugins()
    for info, source in candidates(third_party=third_party, files=files):
        if info.state != "loaded":
            plugins.infos.append(info)
        elif isinstance(source, Path):
            plugins.load_file(source)
        else:
            plugins.load(source)
    for name, plugin in extra:
        plugins.add(plugin, name)
    return plugins


def candidates(*, third_party: bool, files: Sequence[Path]) -> list[tuple[PluginInfo, EntryPoint | Path]]:
    """Every plugin in the order of loading, before any is imported; the state says whether it is to be let in."""
    installed = sorted(entry_points(group=PROJECT_NAME), key=_load_order)
    check_files(files)
    choice = choice_of(installed, [path.stem for path in files]) if third_party else None
    found: list[tuple[PluginInfo, EntryPoint | Path]] = []
    for each in installed:
        info = info_of_entry_point(each)
        if not is_builtin(each):
            info.state = choice.verdict(*names_of(each)) if choice else "blocked"
        found.append((info, each))
    for path in files:
        info = info_of_file(path)
        info.state = choice.verdict(path.stem) if choice else "blocked"
        found.append((info, path))
    return found


class SinkPluginManager(pluggy.PluginManager):
    """A lane's own plugin manager, in which one sink lives: its methods are the hook implementations."""

    def __init__(self, sink: Sink, label: str) -> None:
        super().__init__(PROJECT_NAME)
        self.add_hookspecs(SinkHooks)
        try:
            self.register(sink, label)
        except pluggy.PluginValidationError as error:
            raise PluginError(f"sink {label}: {one_line(error)}", plugin=label) from error

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


@contextmanager
def _noting_deprecations(info: PluginInfo) -> Iterator[None]:
    """Log what pluggy warns of when the plugin is registered, and keep it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecatedHookWarning)
        yield
    for each in caught:
        if isinstance(each.message, DeprecatedHookWarning):
            info.deprecated.append(str(each.message))
            told = {"event": "hook_deprecated", "plugin": info.label}
            log.warning("plugin %s (%s): %s", info.name, info.label, each.message, extra=told)
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _load_order(entry_point: EntryPoint) -> tuple[bool, str, str]:
    return (not is_builtin(entry_point), distribution_of(entry_point), entry_point.name)
