"""Observers are told what happens, on a thread of their own, so that a slow or broken one hurts nobody."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from crdbexport.pipeline.spending import Spent

# Each may hold a batch.
WAITING_EVENTS = 64
FAREWELL_SECONDS = 5.0

log = logging.getLogger(__name__)


class Observing(Protocol):
    """Where the implementations of an observer hook come from; `label` names a plugin."""

    def observers(self, hook: str) -> list[tuple[Any, Callable[..., Any]]]: ...


class Observers:
    """Calls observer hooks one plugin at a time, in the order of events.

    An observer that cannot keep up misses events rather than holding up the run; that is said once.
    """

    def __init__(self, plugins: Observing) -> None:
        self._hooks = {
            hook: plugins.observers(hook)
            for hook in ("crdbexport_run_started", "crdbexport_batch_delivered", "crdbexport_run_finished")
        }
        self.spent = {info.key: (info, Spent()) for hooks in self._hooks.values() for info, _ in hooks}
        self._events: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(WAITING_EVENTS)
        self._thread = threading.Thread(target=self._work, name="crdbexport-observers", daemon=True)
        self._missed = 0
        if any(self._hooks.values()):
            self._thread.start()

    def tell(self, hook: str, **what: Any) -> None:
        """Queue an event for those who observe this hook."""
        if not self._hooks[hook]:
            return
        try:
            self._events.put_nowait((hook, what))
        except queue.Full:
            self._missed += 1
            if self._missed == 1:
                log.warning("an observer is too slow and misses events", extra={"event": "observer_slow"})

    def close(self) -> None:
        """Wait a moment for what is queued; an observer that hangs is left behind."""
        if self._thread.is_alive():
            try:
                self._events.put(None, timeout=FAREWELL_SECONDS)
            except queue.Full:
                return
            self._thread.join(FAREWELL_SECONDS)

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            hook, what = event
            for info, call in self._hooks[hook]:
                _call(info, hook, call, what, self.spent[info.key][1])


def _call(info: Any, hook: str, call: Callable[..., Any], what: Mapping[str, Any], spent: Spent) -> None:
    try:
        with spent.call(batches=hook == "crdbexport_batch_delivered"):
            call(**what)
    except BaseException as error:  # noqa: BLE001 (SystemExit out of a plugin is a failure of that plugin)
        log.warning(
            "observer %s of plugin %s failed: %s: %s",
            hook,
            info.label,
            type(error).__name__,
            error,
            extra={"event": "observer_failed", "plugin": info.label},
        )
