"""What a process of its own is to do, as bytes: a function with its arguments, and what it needs to be found there."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from crdbexport.options import Secret
from crdbexport.testing.check import CheckFailedError

Work = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Errand:
    """`homes` are the modules that `work` needs, by name, each with its file."""

    environment: dict[str, str]
    directory: str
    module_path: list[str]
    homes: dict[str, str]
    work: bytes

    def begin(self) -> Work:
        """Make this process as the one that sent the errand, and answer the work."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.directory)
        sys.path[:] = self.module_path
        for name, file in self.homes.items():
            _bring(name, file)
        work: Work = pickle.loads(self.work)  # noqa: S301 (it came through a pipe from the process that started this one)
        return work


def packed(work: Work) -> bytes:
    """The errand of doing `work` as this process would."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    try:
        pickler.dump(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise CheckFailedError(
            f"the sink cannot be made in another process: {error}; "
            "define its class at the top level of a module, and let its Config hold plain values only"
        ) from error
    environment = dict(os.environ)
    return pickle.dumps(Errand(environment, str(Path.cwd()), list(sys.path), pickler.homes(), buffer.getvalue()))


class _Pickler(pickle.Pickler):
    """Notes the modules of all classes and functions; takes secrets, for the bytes stay between two processes."""

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer)
        self._modules: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType):
            self._note(value)
        if isinstance(value, Secret):
            return Secret, (value.reveal(),)
        return NotImplemented

    def homes(self) -> dict[str, str]:
        files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(self._modules)}
        return {name: file for name, file in files.items() if file}

    def _note(self, value: type | FunctionType) -> None:
        if value.__module__ == "__main__":
            raise pickle.PicklingError(f"{value.__qualname__} stands in the script that was started")
        self._modules.add(value.__module__)


def _bring(name: str, file: str) -> None:
    """Import the module from its file where it would not be found by its name: a plugin of one file, a test."""
    if name in sys.modules or _origin(name) == file:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return  # What needs it says so.
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Nothing is put beside an author's file.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None
