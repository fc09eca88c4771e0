"""The run report: the machine-readable account of a run. Its JSON Schema is `run_report.schema.json` beside this file.

It adds up: for every stream and sink, extracted = filtered + delivered + dead_lettered + undelivered; and
details_wanted = details_fetched + the number of gaps.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import metadata
from typing import Annotated, Literal

import msgspec

from crdbexport import __version__
from crdbexport.errors import CrdbExportError
from crdbexport.records import Gap
from crdbexport.sinks.base import Artifact

SCHEMA_VERSION = 1

Status = Literal["complete", "incomplete", "failed", "interrupted"]
SinkStatus = Literal["committed", "failed", "aborted"]
Lowered = Literal["throttled", "unavailable", "timeout", "latency"]
# Read while this is imported: a run that ends for want of descriptors could not open a file to tell them.
_LIBRARIES = {name: metadata.version(name) for name in ("httptools", "httpx", "pyarrow")}

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class StreamCounts(msgspec.Struct):
    """Records of one stream: read from the cluster, removed by transforms, and the batches that hold the rest."""

    extracted: int = 0
    filtered: int = 0
    batches: int = 0


class ConcurrencyCounts(msgspec.Struct):
    """How many requests might be under way, in the attempt that read last; `mean` is over its time.

    `lowered` counts by cause how often that limit was lowered: 429, 503, no answer in time, answers becoming slower.
    """

    ceiling: int = 0
    min: int = 0
    mean: float = 0.0
    max: int = 0
    last: int = 0
    lowered: dict[Lowered, int] = {}


class RequestCounts(msgspec.Struct):
    """HTTP requests: all that were sent, those that repeat an earlier one, those without a usable answer."""

    total: int = 0
    retried: int = 0
    failed: int = 0
    by_status: dict[str, int] = {}
    concurrency: ConcurrencyCounts | None = None


class ObjectCounts(msgspec.Struct):
    """Databases and tables in the listings, and the parts of them that were asked for and read."""

    listed: int = 0
    details_wanted: int = 0
    details_fetched: int = 0


class Shrink(msgspec.Struct, frozen=True):
    """A stream with less than half of the records, after transforms, that the last accepted snapshot held."""

    stream: str
    before: int
    now: int
    since_run_id: str


class DeliveryCounts(msgspec.Struct):
    """What became of one stream's records at one sink."""

    delivered: int = 0
    dead_lettered: int = 0
    undelivered: int = 0


class SinkReport(msgspec.Struct, omit_defaults=True):
    """What one sink did; `bytes` counts what it published."""

    name: str
    type: str
    target: str
    status: SinkStatus
    streams: dict[str, DeliveryCounts]
    bytes: int
    artifacts: tuple[Artifact, ...]
    error: str | None = None

    def redacted(self, redact: Callable[[str], str]) -> SinkReport:
        """The same with `redact` applied to what the sink worded freely."""
        artifacts = tuple(msgspec.structs.replace(each, location=redact(each.location)) for each in self.artifacts)
        return msgspec.structs.replace(self, artifacts=artifacts, error=redact(self.error) if self.error else None)


class PluginReport(msgspec.Struct, frozen=True):
    """What a sink, transform or observer spent within its own calls, until the report was made.

    `name` is that of the sink or transform in the configuration, or the plugin's. `batches` counts what a sink took, a
    transform passed on, or an observer was told of; `errors` the calls that raised.
    """

    kind: Literal["sink", "transform", "observer"]
    name: str
    distribution: str
    version: str
    wall_seconds: float
    batches: int
    errors: int


class RunReport(msgspec.Struct, kw_only=True):
    """The account of one run, written also when it failed. It holds no secret."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    cluster: str
    logical_time: Moment
    dialect: str | None
    status: Status
    exit_code: int
    error: str | None = None
    started_at: Moment
    finished_at: Moment
    streams: dict[str, StreamCounts]
    requests: RequestCounts
    objects: ObjectCounts
    gaps: tuple[Gap, ...]
    shrunk: tuple[Shrink, ...] = ()
    sinks: tuple[SinkReport, ...]
    plugins: tuple[PluginReport, ...] = ()
    versions: dict[str, str]

    def to_json(self) -> bytes:
        """The report as one indented JSON document in UTF-8, with a line break at its end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, document: bytes) -> RunReport:
        """Read a report back; raises `msgspec.ValidationError` where it does not fit."""
        return msgspec.json.decode(document, type=cls)

    def redacted(self, redact: Callable[[str], str]) -> RunReport:
        """The same with `redact` applied to what strangers worded freely: errors, and places that sinks tell."""
        sinks = tuple(each.redacted(redact) for each in self.sinks)
        return msgspec.structs.replace(self, sinks=sinks, error=redact(self.error) if self.error else None)

    def raise_for_status(self) -> RunReport:
        """The report itself if the run is complete, else `IncompleteRunError` with the report in it."""
        if self.exit_code:
            raise IncompleteRunError(self)
        return self


def versions(plugins: Mapping[str, str]) -> dict[str, str]:
    """The versions that made a run: this package, Python, what carries the data, and the plugins."""
    return {**plugins, "crdbexport": __version__, "python": platform.python_version(), **_LIBRARIES}


class IncompleteRunError(CrdbExportError):
    """A run did not end with exit code 0; `report` is its account."""

    def __init__(self, report: RunReport) -> None:
        super().__init__(f"run {report.run_id} is {report.status} (exit code {report.exit_code}): {report.error}")
        self.report = report
