"""The hooks that plugins implement. A hook may gain arguments; it never loses one within an API version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from crdbexport.report import RunReport
    from crdbexport.sinks.base import Batch, Outcome, Receipt, Run, Sink
    from crdbexport.transforms.base import Transform

PROJECT_NAME = "crdbexport"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class DeprecatedHookWarning(DeprecationWarning):
    """Implementing this hook, or taking this argument of one, will end."""


def deprecated(what: str, *, instead: str, removed_in: str) -> DeprecatedHookWarning:
    """What a hook's specification says to end it, in one line.

    `@hookspec(warn_on_impl=deprecated(...))` for a hook, `warn_on_impl_args={"name": deprecated(...)}` for an argument.
    Whoever implements it is named in a warning when it is loaded, and by `crdbexport plugins doctor`.
    """
    return DeprecatedHookWarning(f"{what} is deprecated and will be removed in {removed_in}; use {instead} instead")


class ProcessHooks:
    """Hooks that a distribution implements, found by the entry-point group `crdbexport`."""

    @hookspec
    def crdbexport_register_sinks(self, register: Callable[[str, type[Sink]], None]) -> None:
        """Offer sink types: call `register(name, sink_class)` for each.

        Called once, at start, on the main thread; an exception takes the whole plugin out and is reported by name.
        """

    @hookspec
    def crdbexport_register_transforms(self, register: Callable[[str, type[Transform]], None]) -> None:
        """Offer transforms: call `register(name, transform_class)` for each.

        Called once, at start, on the main thread; an exception takes the whole plugin out and is reported by name.
        """

    @hookspec
    def crdbexport_run_started(self, run: Run) -> None:
        """Observe that a run begins; `run.sink_name` is empty.

        Called on the observers' thread, one plugin at a time; an exception is logged with the plugin's name.
        """

    @hookspec
    def crdbexport_batch_delivered(self, sink_name: str, batch: Batch) -> None:
        """Observe that a sink has taken a batch, which is not yet committed.

        Called on the observers' thread, one plugin at a time; an exception is logged with the plugin's name.
        """

    @hookspec
    def crdbexport_run_finished(self, report: RunReport) -> None:
        """Observe the run's report, also that of a failed run.

        Called on the observers' thread, one plugin at a time; an exception is logged with the plugin's name.
        """


class SinkHooks:
    """What flows to a sink: the methods of `crdbexport.Sink`, called through the lane's own plugin manager.

    All of them run on the lane's thread; an exception ends this sink and no other.
    """

    @hookspec(firstresult=True)
    def preflight(self, run: Run) -> Any:
        """Refuse, by raising, before the first request to the cluster."""

    @hookspec(firstresult=True)
    def open(self, run: Run) -> Any:
        """Begin the run."""

    @hookspec(firstresult=True)
    def write(self, batch: Batch, run: Run) -> Any:
        """Take one batch, all of it or nothing."""

    @hookspec(firstresult=True)
    def commit(self, run: Run, outcome: Outcome) -> Receipt | None:
        """Publish; called once every batch was accepted and the whole run was read."""

    @hookspec(firstresult=True)
    def abort(self, run: Run, error: BaseException) -> Any:
        """Leave nothing behind; `error` says why."""
