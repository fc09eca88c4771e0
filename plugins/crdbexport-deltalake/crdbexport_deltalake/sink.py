"""The sink: it stages a run on local disk, and brings each stream into its table when the run commits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from crdbexport import Batch, Outcome, Receipt, Run, Sink, SinkConfig, Staging
from crdbexport.config import Secret
from crdbexport.sinks.tables import Delivery, is_secret_setting
from crdbexport_deltalake.place import Place
from crdbexport_deltalake.stream_table import StreamTable

STORES = ("AWS_", "AZURE_", "GOOGLE_")


class DeltaLakeSink(Sink):
    """Publishes every stream as a Delta Lake table below one root: every run, or the present state."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        root: str
        """A directory, or the URI of one in an object store, such as s3://bucket/clusters."""
        mode: Literal["append", "merge"] = "append"
        """Keep every run, or the present state of each cluster."""
        storage_options: dict[str, Secret] = {}
        """What delta-rs is to know of the store; credentials also come from the environment."""
        staging_directory: Path | None = None
        """Where records wait for the commit; the system's directory for temporary files, if left out."""

    conformance: ClassVar[str] = "crdbexport_deltalake.conformance:DeltaLakeConformance"
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._place = Place(config.root, config.storage_options)
        self._staging: Staging | None = None
        self._receipt: Receipt | None = None

    def directories(self) -> Iterable[Path]:
        return () if self._place.directory is None else (self._place.directory,)

    def secrets(self) -> Iterator[str]:
        yield from super().secrets()
        for name, value in self.config.storage_options.items():
            if is_secret_setting(name):
                yield value.reveal()
        yield from (value for name, value in os.environ.items() if name.startswith(STORES) and is_secret_setting(name))

    def preflight(self, run: Run) -> None:
        """Refuse a place that cannot be written or reached, and tables that misfit."""
        self._place.check()
        for table in self._tables(run):
            table.check()

    def open(self, run: Run) -> None:
        self._staging = Staging(run, self.config.root, self.config.staging_directory)

    def write(self, batch: Batch) -> None:
        self._opened().write(batch)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            staging = self._opened()
            delivery = Delivery(run, outcome, staging, replaces=self.config.mode == "merge")
            artifacts = tuple(table.publish(delivery) for table in self._tables(run))
            self._receipt = Receipt(artifacts, sum(each.size_bytes or 0 for each in artifacts))
            staging.close()
        return self._receipt

    def abort(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _tables(self, run: Run) -> Iterator[StreamTable]:
        return (StreamTable(self._place, stream, schema) for stream, schema in run.streams.items())

    def _opened(self) -> Staging:
        if self._staging is None:
            raise RuntimeError("the sink was not opened")
        return self._staging
