"""What sinks share that commit a stream to a table of its own, such as those of Delta Lake and Iceberg."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from crdbexport.disk import cause_of
from crdbexport.errors import ConfigError, SinkRefusedError, shown
from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.sinks.present_state import PresentState
from crdbexport.sinks.staging import Staging

_SECRET_WORDS = ("key", "secret", "token", "password", "credential", "sas", "connection_string", "service_account")
_ATTEMPTS = 12
_EPOCH = datetime.fromtimestamp(0, UTC)
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 5.0


@dataclass(frozen=True)
class Delivery:
    """A run whose records are staged. With `replaces` they are the present state where the run looked."""

    run: Run
    outcome: Outcome
    staging: Staging
    replaces: bool

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """The stream's records, from the first; no batch is empty."""
        with self.staging.read(stream) as reader:
            yield from (batch for batch in reader if batch.num_rows)

    def present_state(self, stream: str) -> PresentState:
        """Which rows of the run's cluster stay in the stream's table."""
        return PresentState(self.outcome.coverage.get(stream), self.batches(stream))


class StreamTable(Protocol):
    """The table of one stream."""

    def check(self) -> None:
        """Refuse a table that cannot take the stream; none at all can."""

    def publish(self, delivery: Delivery) -> Artifact:
        """Bring the records into the table in one commit, unless the run has one there; answers what is there."""


class TablesSink(Sink):
    """Stages a run on local disk, and brings each stream into its table when the run commits.

    Its options have `mode` (`append` or `merge`) and `staging_directory`. A derived sink says where the tables are.
    """

    def __init__(self, config: SinkConfig) -> None:
        super().__init__(config)
        self._staging: Staging | None = None
        self._receipt: Receipt | None = None

    def place(self) -> str:
        """What tells the place of the tables from others."""
        raise NotImplementedError(f"{type(self).__name__} must define place(self)")

    def tables(self, run: Run) -> AbstractContextManager[Iterator[StreamTable]]:
        """The tables of the run's streams, for as long as the context lasts."""
        raise NotImplementedError(f"{type(self).__name__} must define tables(self, run)")

    def preflight(self, run: Run) -> None:
        """Refuse tables that misfit."""
        with self.tables(run) as tables:
            for table in tables:
                table.check()

    def open(self, run: Run) -> None:
        self._staging = Staging(run, self.place(), self.config.staging_directory)

    def write(self, batch: Batch) -> None:
        self._opened().write(batch)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            staging = self._opened()
            delivery = Delivery(run, outcome, staging, replaces=self.config.mode == "merge")
            with self.tables(run) as tables:
                artifacts = tuple(table.publish(delivery) for table in tables)
            self._receipt = Receipt(artifacts, sum(each.size_bytes or 0 for each in artifacts))
            staging.close()
        return self._receipt

    def abort(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _opened(self) -> Staging:
        if self._staging is None:
            raise RuntimeError("the sink was not opened")
        return self._staging


def waits() -> Iterator[float]:
    """How long to wait after each attempt that met the commit of another, as often as it is made again."""
    for attempt in range(_ATTEMPTS):
        # Two that met once shall not meet again.
        yield random.uniform(0.5, 1) * min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)  # noqa: S311


def refuse_unwritable(directory: Path, option: str) -> None:
    """Refuse a directory, which need not be there yet, in which no file can be made; nothing stays of the attempt."""
    nearest = next(each for each in (directory, *directory.parents) if each.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{option} {directory} cannot be made: {nearest} is not a directory; name another place")
    try:
        # Permissions do not tell everything: /proc takes no files from anybody.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {directory} cannot be written: {nearest}: {cause_of(error)}; name another place"
        ) from error


def is_secret_setting(name: str) -> bool:
    """Whether a setting of a store or catalog, by its name, holds what must not be shown."""
    return any(word in name.lower().replace("-", "_") for word in _SECRET_WORDS)


def commit_id(run: Run) -> str:
    """What a commit of the run is known by in its tables: the same in every attempt, and of no other run."""
    return "crdbexport-" + sha256(f"{run.cluster}\0{run.run_id}".encode()).hexdigest()[:32]


def refuse_undoing(run: Run, stream: str) -> SinkRefusedError:
    """The error for a run that was read before one whose records the table holds."""
    return SinkRefusedError(
        f"table {shown(stream)} holds records of this cluster from a later run, which run {shown(run.run_id)} would "
        "undo; start a new run instead"
    )


def refuse_other_reading(run: Run, stream: str) -> SinkRefusedError:
    """The error for a run that the table holds as it was read at another time, before its state was lost."""
    return SinkRefusedError(
        f"table {shown(stream)} holds run {shown(run.run_id)} already, as it was read at another time; give another "
        "--run-id"
    )


def read_at(run: Run) -> int:
    """When the run was read, in microseconds: the same in every attempt, unless the cluster is read anew."""
    return (run.extracted_at - _EPOCH) // timedelta(microseconds=1)
