"""Secrecy: a secret in the environment and in the sink's options appears nowhere."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from crdbexport.sinks.base import Sink
from crdbexport.testing.check import CheckFailedError, check
from crdbexport.testing.faults import WrappedSink
from crdbexport.testing.harness import Harness
from crdbexport.testing.samples import records, sample_run


@check("secrecy")
def no_secret_in_what_is_published(h: Harness) -> None:
    """The secret is in nothing that readers see, and in no file of the target."""
    h.deliver(sample_run())
    _refuse_secret(h, repr(dict(h.kit.read_back(h.place))), "what is read back")
    for path in sorted(h.place.rglob("*")):
        _refuse_secret(h, path.name, f"the name of {path.relative_to(h.place)}")
        if path.is_file():
            _refuse_secret(h, path.read_bytes().decode("latin-1"), str(path.relative_to(h.place)))


@check("secrecy")
def no_secret_in_logs(h: Harness) -> None:
    """The secret is in no log record, of any level, whatever becomes of the run."""
    with _all_logs() as lines:
        h.deliver(sample_run())
        _troubles(h)
    _refuse_secret(h, "\n".join(lines), "a log record")


@check("secrecy")
def no_secret_in_errors(h: Harness) -> None:
    """The secret is in no error that the sink raises, nor in the causes of one."""
    for error in _troubles(h):
        for each in _chain(error):
            _refuse_secret(h, f"{each} {each!r} {getattr(each, '__notes__', '')}", f"a {type(each).__name__}")


@check("secrecy")
def no_secret_in_repr(h: Harness) -> None:
    """The secret is not in the sink's `repr`, `str` or shown target, also while it works."""
    sink = h.sink()
    shown = [_shown(sink)]
    h.deliver(sample_run(), sink=sink)
    _refuse_secret(h, " ".join([*shown, _shown(sink)]), "what the sink shows of itself")


@check("secrecy")
def no_secret_in_the_receipt(h: Harness) -> None:
    """The secret is not in the receipt, which stands in reports."""
    receipt = h.deliver(sample_run()).lane.receipt
    _refuse_secret(h, msgspec.json.encode(receipt).decode(), "the receipt")


def _refuse_secret(h: Harness, text: str, where: str) -> None:
    secret = h.kit.canary
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    if any(shape in text for shape in (secret, encoded, quote(secret, safe=""), json.dumps(secret)[1:-1])):
        raise CheckFailedError(f"the secret is in {where}")


def _shown(sink: Sink) -> str:
    return f"{sink!r} {sink} {sink.shown_target()}"


def _troubles(h: Harness) -> list[BaseException]:
    """What the sink raises when it gets a batch that has too few fields, and when its target is gone."""
    run = sample_run("r2")
    broken = [("tables", records("tables", run=run).select(["cluster", "record_id"]))]
    raised: list[BaseException] = []
    for sink, batches in ((WrappedSink(h.sink()), broken), (_TargetGone(h.sink(), h.place), None)):
        h.feed(run, batches, sink=sink).begin().wait()
        raised += [error for _, error in sink.raised]
    return raised


class _TargetGone(WrappedSink):
    """Puts a file in the place of the target before the sink commits."""

    def __init__(self, sink: Sink, place: Path) -> None:
        super().__init__(sink)
        self._place = place

    def around(self, method: str, call: Callable[..., Any], **arguments: Any) -> Any:
        if method == "commit":
            shutil.rmtree(self._place)
            self._place.touch()
        return call(**arguments)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _all_logs() -> Iterator[list[str]]:
    """Every log record of this process, formatted, while the context lasts."""
    lines: list[str] = []
    root, own = logging.getLogger(), logging.getLogger("crdbexport")
    levels = [(each, each.level) for each in (root, own)]
    handler = _Keeping(lines)
    root.addHandler(handler)
    for each, _ in levels:
        each.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        for each, level in levels:
            each.setLevel(level)


class _Keeping(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{self.format(record)} {vars(record)}")


CHECKS = (
    no_secret_in_what_is_published,
    no_secret_in_logs,
    no_secret_in_errors,
    no_secret_in_repr,
    no_secret_in_the_receipt,
)
