"""Every error this package raises, grouped by what to do about it.

    CrdbExportError                 exit 1   a bug here
    ├── ConfigError                 exit 2   change the command, the file or the environment
    │   ├── PluginError             exit 2   mend, update or leave out the plugin
    │   └── PreflightError          exit 2*  a sink cannot work as configured (*or the code of the sink's own error)
    ├── ClusterRefusedError         exit 4   stop: the cluster says no for good
    │   ├── AuthenticationError                 wrong credentials, or a session that is refused twice
    │   ├── RedirectRefusedError                the server points elsewhere; a session never travels there
    │   ├── CertificateError                    TLS: the certificate does not prove who answers
    │   └── UnexpectedServerError               what answers is not this API
    ├── TryLaterError               exit 5   run the same command again later
    │   ├── ClusterUnavailableError             unreachable or failing
    │   ├── StorageError                        full or failing disk
    │   └── RunHeldError                        another process works on this run
    ├── StoppedError                exit 130, 143   the user or the scheduler ended the run
    ├── UnreadableError             becomes a gap: one part of one object cannot be read
    │   ├── LookAgainError                      no retry now; one more look at the end of the run
    │   └── PartlyReadError                     a gap, and yet some of the part is there
    └── SinkError                   raised by sinks; the lane decides
        ├── SinkRefusedError                    for good: credentials, 410, a table of another shape
        │   └── StrictRefusalError              a record was refused in a run with --strict
        ├── OutputClosedError       exit 141    nobody reads standard output any more; to be told to nobody
        ├── SnapshotKeptError       exit 3      a complete snapshot stays; the incomplete one is not published
        ├── SinkBusyError                       later: the lane writes the same batch again
        └── RecordRefusedError                  some records, for good: they become dead letters

A message says where, what, and what to do now. It never holds a body, a token, a password or a query string.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

SIGNAL_EXIT_BASE = 128


class CrdbExportError(Exception):
    """The root of all errors of this package; by itself, a bug in it."""

    exit_code = 1


class ConfigError(CrdbExportError):
    """The command line, the file or the environment asks for something impossible."""

    exit_code = 2


class PluginError(ConfigError):
    """A plugin cannot be loaded, or breaks its contract. `plugin` names its distribution and version."""

    def __init__(self, message: str, *, plugin: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin


class PreflightError(ConfigError):
    """A sink refused before anything was read; `exit_code` is that of its own error."""


class ClusterRefusedError(CrdbExportError):
    """The cluster refuses for good; repeating the command changes nothing."""

    exit_code = 4

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AuthenticationError(ClusterRefusedError):
    """The login, or a session fresh from it, was refused."""


class RedirectRefusedError(ClusterRefusedError):
    """The server answered with a redirect; following it would hand the session to another address."""


class CertificateError(ClusterRefusedError):
    """The TLS certificate could not be verified; nothing was sent."""


class UnexpectedServerError(ClusterRefusedError):
    """What answers at the URL does not speak this API."""


class TryLaterError(CrdbExportError):
    """Nothing is wrong with the command; the same one may work later."""

    exit_code = 5


class ClusterUnavailableError(TryLaterError):
    """The cluster cannot be reached, or keeps failing."""


class StorageError(TryLaterError):
    """The local disk is full or fails."""


class RunHeldError(TryLaterError):
    """Another process holds this run, or the place it publishes to."""


class StoppedError(CrdbExportError):
    """The run was stopped from outside by `signal_number`."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number
        self.exit_code = SIGNAL_EXIT_BASE + signal_number


class UnreadableError(CrdbExportError):
    """One part of one object cannot be read; `reason` is one of `records.GAP_REASONS`."""

    def __init__(self, message: str, *, reason: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.http_status = http_status


class LookAgainError(UnreadableError):
    """The part deserves one more look at the end of the run, and no retries meanwhile."""


class PartlyReadError(UnreadableError):
    """The part cannot be read as a whole; `value` is what could be, in the form that the whole would have."""

    def __init__(self, message: str, value: Any, *, reason: str, http_status: int | None = None) -> None:
        super().__init__(message, reason=reason, http_status=http_status)
        self.value = value


class SinkError(CrdbExportError):
    """A sink cannot go on. Sinks may raise any exception; this one's message is shown as it stands."""

    exit_code = 5


class SinkRefusedError(SinkError):
    """The target refuses for good: repeating changes nothing (credentials, gone, a table of another shape)."""

    exit_code = 4


class StrictRefusalError(SinkRefusedError):
    """The target refuses some of the records for good, and the run shall publish all of them or nothing."""


class OutputClosedError(SinkError):
    """Whoever read the sink's output has closed it, as `head` does; the exit code is the one that SIGPIPE leads to."""

    exit_code = 141


class SnapshotKeptError(SinkError):
    """The target already holds a complete snapshot for this cluster and logical time, and this run is incomplete."""

    exit_code = 3


class SinkBusyError(SinkError):
    """The target cannot take the batch now; the lane writes it again after `retry_after` seconds."""

    def __init__(self, message: str = "the target is busy", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RecordRefusedError(SinkError):
    """The target refuses these records for good; they become dead letters with this reason.

    The lane then writes the batch again without them, unless `rest_written` says that the others have already been
    taken. A sink that cannot tell which records are meant gives no ids: the lane then writes halves of the batch, and
    halves of these, until it knows.
    """

    def __init__(self, record_ids: Collection[str], reason: str, *, rest_written: bool = False) -> None:
        what = f"{len(record_ids)} records" if record_ids else "some record of the batch"
        super().__init__(f"{what} refused: {reason}")
        self.record_ids = frozenset(record_ids)
        self.reason = reason
        self.rest_written = rest_written


def shown(text: str) -> str:
    """`text` in double quotes, safe for a terminal and a log: what is not printable is escaped.

    Names come from the cluster and may hold line breaks, escape sequences and direction overrides.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)
    return f'"{visible}"'
