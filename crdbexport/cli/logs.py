"""Log lines on standard error: text for people, one JSON object an event for machines; no secret in either."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from crdbexport.redaction import Redaction

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
# What the summary tells people, once and with what it led to.
SUMMED_UP = frozenset({"sink_failed"})
LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


def set_up(log_format: str, verbosity: int, redaction: Redaction) -> None:
    """Send this package's log to standard error. `verbosity` is -1 for quiet, 0, or the number of -v.

    What other libraries warn of comes in the same form, unless they have a handler of their own.
    """
    handler = _StandardError()
    kind = _JsonFormatter if log_format == "json" else _TextFormatter
    handler.setFormatter(kind(verbosity > 0, redaction))
    if log_format == "text" and not verbosity:
        handler.addFilter(lambda record: getattr(record, "event", None) not in SUMMED_UP)
    logger = logging.getLogger("crdbexport")
    logger.handlers = [handler]
    logger.propagate = False
    # Machines want every event; people want what went wrong.
    usual = 1 if log_format == "json" and verbosity == 0 else verbosity
    logger.setLevel(LEVELS[max(-1, min(usual, 2))])
    last_resort = _StandardError(logging.ERROR if verbosity < 0 else logging.WARNING)
    last_resort.setFormatter(handler.formatter)
    logging.lastResort = last_resort


def name_run(run_id: str, cluster: str) -> None:
    """Have each line that is made for machines say of which run it is, from now on."""
    for handler in logging.getLogger("crdbexport").handlers:
        if isinstance(handler.formatter, _JsonFormatter):
            handler.formatter.run = {"run_id": run_id, "cluster": cluster}


def tell_failure(message: str, error: BaseException | None = None) -> None:
    """The last word of a command that failed, in the form of the log; with -v, the traceback of `error` too."""
    logger = logging.getLogger("crdbexport")
    if not logger.handlers:
        set_up("text", 0, Redaction())
    logger.error("%s", message, exc_info=error, extra={"event": "failed"})


def one_line(text: str) -> str:
    """`text` without line breaks and without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split("\n")))


def say(text: str, *, err: bool = False) -> None:
    """Print one line, in which nothing plays tricks on a terminal."""
    click.echo(one_line(text), err=err)


def say_json(document: Any) -> None:
    """Print one JSON document for programs; on a terminal, too, names in it are nothing but text."""
    text = msgspec.json.format(msgspec.json.encode(document, order="deterministic", enc_hook=str), indent=2).decode()
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


class _StandardError(logging.Handler):
    """Writes to whatever standard error is now: a progress display redirects it while it shows."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(self.format(record), file=sys.stderr)  # noqa: T201 (this is the log)


class _Formatter(logging.Formatter):
    def __init__(self, tracebacks: bool, redaction: Redaction) -> None:
        super().__init__()
        self._tracebacks = tracebacks
        self._redact = redaction

    def traceback(self, record: logging.LogRecord) -> str:
        """The traceback with its causes, if it is to be told; each line safe for a terminal."""
        if not record.exc_info or not self._tracebacks:
            return ""
        lines = self._redact(self.formatException(record.exc_info)).split("\n")
        # Set in, so that no error's own line breaks make a line of the log.
        return "\n".join(f"  {one_line(line)}" for line in lines)


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {one_line(self._redact(record.getMessage()))}"
        return "\n".join(filter(None, (line, self.traceback(record))))


class _JsonFormatter(_Formatter):
    run: Mapping[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **self.run,
        }
        fields |= {key: value for key, value in vars(record).items() if key not in STANDARD and key != "event"}
        if traceback := self.traceback(record):
            fields["traceback"] = traceback
        # Not msgspec: it refuses half characters, and lets pass what a terminal obeys.
        return json.dumps(_texts_redacted(msgspec.to_builtins(fields, enc_hook=str), self._redact))


def _texts_redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _texts_redacted(each, redact) for name, each in value.items()}
    return [_texts_redacted(each, redact) for each in value] if isinstance(value, list | tuple) else value
