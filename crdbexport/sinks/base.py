"""What a sink author sees: the sink, its options, and the values that flow to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from crdbexport.options import Secret
from crdbexport.records import Gap
from crdbexport.redaction import credentials_in, without_credentials
from crdbexport.selection import Coverage

if TYPE_CHECKING:
    import pyarrow as pa

API_VERSION = 1


class SinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a sink type; a sink declares its own in a nested class `Config`.

    Each field is an option: `--sink-option NAME.FIELD=VALUE`, or a key under `[sinks.NAME]`. `target` names the field
    that the second half of `TYPE:TARGET` fills; left empty, it is the first field. Fields may be of any type that
    msgspec decodes, and `pathlib.Path`.
    """

    target: ClassVar[str] = ""

    timeout_seconds: float = 300.0
    """How long one call of the sink may take before the sink is cut off."""


@dataclass(frozen=True)
class Run:
    """The run as a sink sees it. `streams` holds the Arrow schema of every stream that the run exports.

    `redelivery`: the sink has committed this run before, and is given again only what it had refused then.
    """

    cluster: str
    run_id: str
    logical_time: datetime
    extracted_at: datetime
    sink_name: str
    streams: Mapping[str, pa.Schema]
    redelivery: bool = False


@dataclass(frozen=True)
class Batch:
    """Some records of one stream. `sequence` counts a stream's batches from 0, the same in every attempt of a run."""

    stream: str
    sequence: int
    data: pa.RecordBatch

    def rows(self) -> list[dict[str, Any]]:
        """The records as dictionaries, in order; integers are exact, timestamps are aware datetimes."""
        rows: list[dict[str, Any]] = self.data.to_pylist()
        return rows


@dataclass(frozen=True)
class Outcome:
    """What is known of the run when it commits: what was read, and what was not.

    `complete` is false when a gap stands whose reason is not allowed, or a stream shrank. `coverage` tells per stream
    which records would have been seen if they still existed; a sink that keeps state deletes only within it. `rows`
    counts the records that were sent to the sink, dead letters included.
    """

    complete: bool
    gaps: tuple[Gap, ...]
    coverage: Mapping[str, Coverage]
    rows: Mapping[str, int]


class Artifact(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a sink published, by a path or a name that its reader understands."""

    location: str
    stream: str | None = None
    rows: int | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """A sink's answer on commit: what it published, where, and how many bytes. The lane counts the rows itself."""

    artifacts: tuple[Artifact, ...] = ()
    size_bytes: int = 0


class Sink:
    """Where batches go. Only `write` is required.

    A lane drives one sink from one thread of its own: `preflight`, `open`, `write` for every batch in order, then
    `commit` or `abort`. Each method names only the arguments that it wants, from the `SinkHooks` of
    `crdbexport.hookspecs`. An exception ends this sink and no other; see `crdbexport.errors` for the three that the
    lane understands. After a crash a run starts again with a fresh sink at the first batch.
    """

    Config: ClassVar[type[SinkConfig]] = SinkConfig
    api_version: ClassVar[int] = API_VERSION

    config: Any

    def __init__(self, config: SinkConfig) -> None:
        self.config = config

    def preflight(self, *args: Any, **kwargs: Any) -> None:
        """Can this work at all? Runs before the first request to the cluster; raise to refuse the run."""

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Make ready for the run; nothing may become visible to readers yet."""

    def write(self, *args: Any, **kwargs: Any) -> None:
        """Take the batch, all of it or (raising) nothing."""
        raise TypeError(f"{type(self).__name__} must define write(self, batch)")

    def commit(self, *args: Any, **kwargs: Any) -> Receipt | None:
        """Publish what was written, atomically as far as the target allows; a repeat for the same run adds nothing."""
        return None

    def abort(self, *args: Any, **kwargs: Any) -> None:
        """Leave nothing behind. May be called at any time after `preflight`, also twice."""

    def shown_target(self) -> str:
        """The target as it may be shown in reports and logs; override where it can hold a secret.

        A URL is shown without user, password and query.
        """
        name = target_field(type(self.config))
        return without_credentials(str(getattr(self.config, name))) if name else ""

    def secrets(self) -> Iterable[str]:
        """What must appear in no report, dead letter or log, whoever words it; add what comes from the environment.

        Found without your help: options of the type `crdbexport.config.Secret`, and passwords in options that are URLs.
        """
        for value in (getattr(self.config, name) for name in type(self.config).__struct_fields__):
            if isinstance(value, Secret):
                yield value.reveal()
            elif isinstance(value, str):
                yield from credentials_in(value)

    def directories(self) -> Iterable[Path]:
        """Directories that must belong to this sink alone within a run."""
        return ()


def target_field(config_type: type[SinkConfig]) -> str:
    """The option that `TYPE:TARGET` fills: what `target` says, else the first option that the sink declares itself."""
    if config_type.target:
        return config_type.target
    own = [name for name in config_type.__struct_fields__ if name not in SinkConfig.__struct_fields__]
    return own[0] if own else ""
