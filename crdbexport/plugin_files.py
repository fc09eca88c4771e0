"""Plugins of one file, which are named by `--plugin` and need no packaging."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from traceback import walk_tb
from types import FunctionType, ModuleType

from crdbexport.errors import PluginError, shown

MODULE_PREFIX = "_crdbexport_plugin_file_"


def module_name(path: Path) -> str:
    """The private name that the file's module is loaded under: no other module is called so."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"{MODULE_PREFIX}{digest}_{path.stem}"


def imported_file(path: Path) -> ModuleType:
    """The file's module, executed anew; whatever its code raises comes out of here."""
    name = module_name(path)
    spec = importlib.util.spec_from_loader(name, _Uncached(name, str(path)))
    assert spec is not None and spec.loader is not None  # noqa: S101 (it was given a loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def forget_file(path: Path) -> None:
    """Let nothing of the file's module be found any more."""
    sys.modules.pop(module_name(path), None)


def check_files(paths: Iterable[Path]) -> None:
    """Raise `PluginError` for what cannot be a plugin of one file."""
    stems: dict[str, Path] = {}
    for path in paths:
        if path.suffix != ".py":
            raise PluginError(f"--plugin {shown(str(path))}: not a Python file; its name ends in .py")
        if not path.is_file():
            raise PluginError(f"--plugin {shown(str(path))}: there is no such file")
        if path.stem in stems:
            raise PluginError(
                f"--plugin {shown(str(path))}: {shown(str(stems[path.stem]))} has the same name; give one another"
            )
        stems[path.stem] = path


def place_of(error: BaseException, path: Path) -> str:
    """The file as it was named, with the line of it that `error` is about, where one is."""
    line = _line(error, path)
    return f"--plugin {shown(str(path))}" + (f", line {line}" if line else "")


def _line(error: BaseException, path: Path) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 0
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return lines[-1] if lines else _line_of_function(str(error), vars(sys.modules.get(module_name(path), object)))


def _line_of_function(text: str, members: Mapping[str, object]) -> int:
    """Where the function of the file begins that `text` names in quotes."""
    named = [
        (text.index(f"'{name}'"), member.__code__.co_firstlineno)
        for name, member in members.items()
        if f"'{name}'" in text and isinstance(member, FunctionType)
    ]
    return min(named)[1] if named else 0


class _Uncached(SourceFileLoader):
    """Neither reads nor writes bytecode: nothing is put beside the user's file, and each change of it counts."""

    def path_stats(self, path: str) -> Mapping[str, float]:
        raise OSError(f"{path} is not cached")
