"""One plugin examined from cold: `python -m crdbexport.cli.plugins.examining`, in a process that nothing else needs.

It answers one JSON document, whatever the plugin prints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import msgspec

from crdbexport.errors import CrdbExportError, PluginError
from crdbexport.hookspecs import PROJECT_NAME
from crdbexport.plugin_checks import one_line
from crdbexport.plugin_choice import BLOCK_VARIABLE, distribution_of, is_builtin
from crdbexport.plugin_files import imported_file, place_of
from crdbexport.plugin_info import PluginInfo, info_of_file
from crdbexport.plugin_manager import PLUGIN_FAILURES, Plugins

CheckName = Literal["import", "hooks", "api", "names", "options", "conformance"]
CHECKS: tuple[CheckName, ...] = ("import", "hooks", "api", "names", "options", "conformance")
FIT = "update the plugin, or crdbexport, so that they fit together"
REMEDIES: dict[CheckName, str] = {
    "import": f"install what it needs, update it, or leave it out with {BLOCK_VARIABLE}",
    "hooks": FIT,
    "api": FIT,
    "names": f"uninstall one of the two, or leave one out with {BLOCK_VARIABLE}",
    "options": "report it to its authors",
    "conformance": "install what its tests need, if you want to run `crdbexport plugins conformance`",
}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a plugin, and what to do; a `warning` keeps nobody from using it."""

    check: CheckName
    severity: Literal["error", "warning"]
    problem: str
    remedy: str


class Examined(msgspec.Struct):
    """What was found: how long its import takes beyond what crdbexport itself loads, and what it offers."""

    import_ms: float | None = None
    hooks: list[str] = []
    sinks: list[str] = []
    transforms: list[str] = []
    conformance: list[str] = []
    problems: list[Problem] = []


def problem(check: CheckName, text: str, *, warning: bool = False, remedy: str = "") -> Problem:
    return Problem(check, "warning" if warning else "error", text, remedy or REMEDIES[check])


def examined(load: Callable[[], object], info: PluginInfo) -> Examined:
    """Import one plugin, offer it the hooks beside the built-in ones, and look at what it offers."""
    found, plugins = Examined(), Plugins()
    for each in entry_points(group=PROJECT_NAME):
        if is_builtin(each):
            plugins.load(each)
    own = is_builtin_info(info)
    try:
        began = time.perf_counter()
        plugin = load()
        found.import_ms = round((time.perf_counter() - began) * 1000, 1)
        taken = plugins.infos[0] if own else _added(plugins, plugin, info.name)
    except PLUGIN_FAILURES as error:
        found.problems.append(_refused(error, info, imported=found.import_ms is not None))
        return found
    found.hooks, found.sinks, found.transforms = taken.hooks, taken.sinks, taken.transforms
    found.problems += [
        problem("hooks", each, warning=True, remedy="ask its authors for a version without it")
        for each in taken.deprecated
    ]
    found.problems += _of_options(plugins, taken)
    found.conformance = [name for name in taken.sinks if getattr(plugins.sinks[name].kind, "conformance", "")]
    found.problems += _of_conformance(plugins, found.conformance)
    return found


def is_builtin_info(info: PluginInfo) -> bool:
    return info.distribution == PROJECT_NAME


def _added(plugins: Plugins, plugin: object, name: str) -> PluginInfo:
    plugins.add(plugin, name)
    taken = plugins.infos[-1]
    if not taken.hooks:
        raise PluginError("it holds no hook; its entry point may name the wrong module")
    return taken


def _refused(error: BaseException, info: PluginInfo, *, imported: bool) -> Problem:
    """The check that a plugin fails which is not taken."""
    cause = error.__cause__ if isinstance(error, PluginError) and error.__cause__ else error
    text = one_line(cause)
    if info.is_file:
        place = place_of(cause, Path(info.location))
        return problem("hooks" if imported else "import", f"{place}: {text}", remedy="mend the file")
    if not imported:
        return problem("import", text)
    if "wants plugin API" in text:
        return problem("api", text)
    return problem("names" if " is already offered by " in text else "hooks", text)


def _of_options(plugins: Plugins, info: PluginInfo) -> Iterator[Problem]:
    """Options that cannot be decoded whatever is given; that some are required is as it should be."""
    for name in (*info.sinks, *info.transforms):
        offer: Any = plugins.sinks.get(name) or plugins.transforms[name]
        try:
            msgspec.convert({}, offer.kind.Config, strict=False, dec_hook=lambda kind, value: value)
        except msgspec.ValidationError:
            continue
        except PLUGIN_FAILURES as error:
            yield problem("options", f"the Config of {name!r} cannot be decoded: {one_line(error)}")


def _of_conformance(plugins: Plugins, names: list[str]) -> Iterator[Problem]:
    from crdbexport.testing.conformance import load_conformance

    for name in names:
        kind: Any = plugins.sinks[name].kind
        where = f"{kind.__module__}{kind.conformance}" if kind.conformance.startswith(":") else kind.conformance
        try:
            load_conformance(where)
        except (*PLUGIN_FAILURES, CrdbExportError) as error:
            yield problem("conformance", f"the conformance class of {name!r}: {one_line(error)}", warning=True)


def _wanted(distribution: str, name: str) -> EntryPoint:
    found = entry_points(group=PROJECT_NAME, name=name)
    return next(each for each in found if distribution_of(each) == distribution)


def main(arguments: list[str]) -> None:
    """Answer on what was standard output: whatever the plugin prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    if arguments[0] == "file":
        path = Path(arguments[1])
        found = examined(lambda: imported_file(path), info_of_file(path))
    else:
        distribution, name = arguments[1:]
        found = examined(_wanted(distribution, name).load, PluginInfo(name, distribution, "", ""))
    os.write(answer, msgspec.json.encode(found))
    # Threads that the import has left behind keep nobody waiting.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
