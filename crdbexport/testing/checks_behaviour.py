"""Behaviour: a good guest in a process that it shares with others."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from crdbexport.errors import CrdbExportError
from crdbexport.options import convert
from crdbexport.pipeline.lane import LaneCutOffError
from crdbexport.sinks.base import Sink, SinkConfig
from crdbexport.testing.check import CheckFailedError, NotApplicableError, check
from crdbexport.testing.faults import StoppedInWrite
from crdbexport.testing.harness import POLL_SECONDS, Harness
from crdbexport.testing.process_state import (
    logging_state,
    open_files,
    printing_to,
    process_state,
    temporary_directory,
)
from crdbexport.testing.samples import sample_run

LINGER_SECONDS = 3.0


@check("behaviour")
def slow_write_is_cut_off(h: Harness) -> None:
    """A run that is cut off in a slow write leaves nothing when the write comes back, and can be delivered again."""
    run = sample_run()
    sink = StoppedInWrite(h.sink(), 4)
    feed = h.feed(run, sink=sink).begin()
    try:
        h.until(lambda: sink.reached.is_set() or feed.lane.ended.is_set())
        feed.lane.cut_off(LaneCutOffError("`write` took too long"))
    finally:
        sink.go_on.set()
        feed.wait()
    if h.capabilities.transactional:
        h.must_hold_nothing_of(run, "was cut off")
    h.must_hold(h.deliver(run), repeats=not h.capabilities.idempotent)


@check("behaviour")
def works_on_another_thread(h: Harness) -> None:
    """A sink may be made on a thread that is not the main one."""
    made: list[Sink | BaseException] = []

    def make() -> None:
        try:
            made.append(h.sink())
        except BaseException as error:  # noqa: BLE001 (told below, on the thread that checks)
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join(h.patience)
    if not made or isinstance(made[0], BaseException):
        raise CheckFailedError(f"on another thread, the sink cannot be made: {made[0] if made else 'it hangs'}")
    h.must_hold(h.deliver(sample_run(), sink=made[0]))


@check("behaviour")
def preflight_publishes_nothing(h: Harness) -> None:
    """A run that ends after the preflight leaves nothing that readers see, and is in nobody's way."""
    feed = h.feed(sample_run()).check()
    feed.lane.dismiss()
    feed.wait()
    h.must_hold_nothing_of(feed.run, "did not begin")
    h.must_hold(h.deliver(sample_run("r2")))


@check("behaviour")
def unknown_option_is_refused(h: Harness) -> None:
    """An option that the sink does not have is refused by a message that names it."""
    config = h.sink().config
    settings = {**msgspec.structs.asdict(config), "no_such_option": 1}
    _must_refuse(h, type(config), settings, "no_such_option")


@check("behaviour")
def wrong_type_is_refused(h: Harness) -> None:
    """An option of a wrong type is refused by a message that names it."""
    config = h.sink().config
    for name in config.__struct_fields__:
        _must_refuse(h, type(config), {**msgspec.structs.asdict(config), name: _Nothing()}, name)


@check("behaviour")
def wrong_options_are_refused(h: Harness) -> None:
    """Options that the author declares wrong are refused before anything is written, by a message that names them."""
    if not h.kit.wrong_options:
        raise NotApplicableError("no wrong_options are declared")
    config = h.sink().config
    for name, value in h.kit.wrong_options.items():
        _must_refuse(h, type(config), {**msgspec.structs.asdict(config), name: value}, name, str(value))


@check("behaviour")
def prints_nothing(h: Harness) -> None:
    """The sink prints nothing, neither on standard output nor on standard error."""
    with printing_to(h.work / "printed") as printed:
        _some_runs(h)
    if text := printed():
        raise CheckFailedError(f"the sink printed {text[:60]!r}")


@check("behaviour")
def leaves_the_process_alone(h: Harness) -> None:
    """Working directory, umask, environment, locale, signal handlers and the like stay as they are."""
    _must_not_change(h, process_state)


@check("behaviour")
def leaves_logging_alone(h: Harness) -> None:
    """The root logger and the warnings filters stay as they are."""
    _must_not_change(h, logging_state)


@check("behaviour")
def leaves_no_threads(h: Harness) -> None:
    """No thread stays behind after a run, whatever became of it."""
    _must_return_to(h, lambda: set(threading.enumerate()), "threads")


@check("behaviour")
def leaves_no_open_files(h: Harness) -> None:
    """No file or connection stays open after a run, whatever became of it, and without waiting for the garbage."""
    _must_return_to(h, open_files, "open files")


@check("behaviour")
def leaves_no_temporary_files(h: Harness) -> None:
    """Nothing stays in the directory for temporary files."""
    with temporary_directory(h.work / "temporary") as directory:
        _some_runs(h)
        if left := sorted(each.name for each in directory.iterdir()):
            raise CheckFailedError(f"{len(left)} temporary files stay behind, such as {left[0]}")


def _some_runs(h: Harness) -> list[Sink]:
    """One run that is committed and one that is given up; the sinks are alive as long as the answer is."""
    sinks = [h.sink(), h.sink()]
    h.deliver(sample_run(cluster="committed"), sink=sinks[0])
    h.interrupted(h.feed(sample_run(cluster="given up"), sink=sinks[1]))
    return sinks


def _must_not_change(h: Harness, state: Callable[[], dict[str, Any]]) -> None:
    before = state()
    _some_runs(h)
    for name, now in state().items():
        if now != before[name]:
            raise CheckFailedError(f"the sink changed the {name} of the process")


def _must_return_to(h: Harness, seen: Callable[[], set[Any]], what: str) -> None:
    _some_runs(h)  # What libraries keep for good, they have now.
    gc.collect()
    before = seen()
    sinks = _some_runs(h)
    deadline = time.monotonic() + min(LINGER_SECONDS, h.patience)
    while left := seen() - before:
        if time.monotonic() > deadline:
            raise CheckFailedError(f"{len(left)} {what} stay behind, such as {sorted(map(str, left))[0]}")
        time.sleep(POLL_SECONDS)
    del sinks


def _must_refuse(h: Harness, config_type: type[SinkConfig], settings: dict[str, Any], *names: str) -> None:
    """Convert the options, make the sink and run its preflight: one of these must refuse, and name one of `names`."""
    kind = type(h.sink())
    try:
        sink = kind(convert(settings, config_type, where="sink conformance"))
        feed = h.feed(sample_run(), sink=sink).check()
        feed.lane.dismiss()
        error = feed.wait().lane.error if feed.status == "failed" else None
    except CrdbExportError as refusal:
        error = refusal
    except Exception as other:
        raise CheckFailedError(f"option {names[0]} leads to {type(other).__name__} instead of a refusal") from other
    if error is None:
        raise CheckFailedError(f"a wrong option {names[0]} is not refused")
    if not any(name.lower() in str(error).lower() for name in names):
        raise CheckFailedError(f"the refusal of option {names[0]} does not name it: {error}")


class _Nothing:
    """A value of no type that an option could have."""


CHECKS = (
    slow_write_is_cut_off,
    works_on_another_thread,
    preflight_publishes_nothing,
    unknown_option_is_refused,
    wrong_type_is_refused,
    wrong_options_are_refused,
    prints_nothing,
    leaves_the_process_alone,
    leaves_logging_alone,
    leaves_no_threads,
    leaves_no_open_files,
    leaves_no_temporary_files,
)
