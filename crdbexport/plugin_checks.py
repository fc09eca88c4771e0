"""Whether what a plugin offers can be a sink or a transform at all."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

from crdbexport.errors import PluginError
from crdbexport.sinks.base import API_VERSION, Sink, SinkConfig
from crdbexport.transforms.base import TransformConfig

SINK_METHODS = ("preflight", "open", "write", "commit", "abort")


def check_kind(name: str, kind: type) -> None:
    """Raise `PluginError` where the sink type or transform `name` could not work with this version."""
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


def misspelt(hook: str, known: Iterable[str]) -> str:
    """That there is no such hook, and which one may be meant."""
    close = difflib.get_close_matches(hook, list(known), n=1, cutoff=0.5)
    return f"there is no hook {hook!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def one_line(error: BaseException) -> str:
    """The error in one line; a stranger's with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
