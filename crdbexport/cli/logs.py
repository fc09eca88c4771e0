"""Log lines on standard error: text for people, one JSON object an event for machines."""

from __future__ import annotations

import contextlib
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


def set_up(log_format: str, verbosity: int) -> None:
    """Send this package's log to standard error. `verbosity` is -1 for quiet, 0, or the number of -v."""
    handler = _StandardError()
    tracebacks = verbosity > 0
    handler.setFormatter(_JsonFormatter(tracebacks) if log_format == "json" else _TextFormatter(tracebacks))
    logger = logging.getLogger("crdbexport")
    logger.handlers = [handler]
    logger.propagate = False
    # Machines want every event; people want what went wrong.
    usual = 1 if log_format == "json" and verbosity == 0 else verbosity
    logger.setLevel(LEVELS[max(-1, min(usual, 2))])


def tell_failure(message: str, error: BaseException | None = None) -> None:
    """The last word of a command that failed, in the form of the log; with -v, the traceback of `error` too."""
    logger = logging.getLogger("crdbexport")
    if not logger.handlers:
        set_up("text", 0)
    logger.error("%s", message, exc_info=error, extra={"event": "failed"})


def one_line(text: str) -> str:
    """`text` without line breaks and without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split("\n")))


class _StandardError(logging.Handler):
    """Writes to whatever standard error is now: a progress display redirects it while it shows."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(self.format(record), file=sys.stderr)  # noqa: T201 (this is the log)


class _TextFormatter(logging.Formatter):
    def __init__(self, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        if record.exc_info and self._tracebacks:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    def __init__(self, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in STANDARD and key != "event"}
        if record.exc_info and self._tracebacks:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields, enc_hook=str).decode()
