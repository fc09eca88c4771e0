"""Whose fault an unexpected error is: the plugin's whose code stands on its traceback, or a bug here."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from traceback import walk_tb

from crdbexport.errors import ConfigError, CrdbExportError
from crdbexport.hookspecs import PROJECT_NAME
from crdbexport.plugin_choice import BLOCK_VARIABLE, is_builtin
from crdbexport.plugin_files import MODULE_PREFIX
from crdbexport.plugin_info import FILE_VERSION, PluginInfo, info_of_entry_point


def exit_code_of(error: BaseException) -> int:
    """The exit code of what ends a command before its time: a stranger's error is that of the plugin it came from."""
    if isinstance(error, CrdbExportError):
        return error.exit_code
    return ConfigError.exit_code if culprit(error) else CrdbExportError.exit_code


def culprit(error: BaseException) -> PluginInfo | None:
    """The plugin whose code is the nearest to where the error, or what it came from, was raised."""
    for module in _modules(error):
        if module.startswith(MODULE_PREFIX):
            # What follows the prefix is eight digits of a digest and the file's stem.
            stem = module.removeprefix(MODULE_PREFIX).split("_", 1)[1].split(".")[0]
            return PluginInfo(stem, stem, FILE_VERSION, module)
        package = module.partition(".")[0]
        for each in entry_points(group=PROJECT_NAME):
            if each.module.partition(".")[0] == package and not is_builtin(each):
                return info_of_entry_point(each)
    return None


def way_out(info: PluginInfo, command: str) -> str:
    """The command that leaves the plugin out; what is blocked already stays so."""
    blocked = ",".join(filter(None, (os.environ.get(BLOCK_VARIABLE, "").strip(), info.name)))
    return f"{BLOCK_VARIABLE}={shlex.quote(blocked)} {command}"


def _modules(error: BaseException) -> Iterator[str]:
    """The modules on the traceback, innermost first; then those of its causes."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield from reversed([str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(each.__traceback__)])
        each = each.__cause__ or each.__context__
