"""The sink: it stages a run on local disk, and brings each stream into its table when the run commits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from crdbexport import Batch, ConfigError, Outcome, Receipt, Run, Sink, SinkConfig, Staging
from crdbexport.config import Secret
from crdbexport.redaction import credentials_in
from crdbexport.sinks.tables import Delivery, is_secret_setting
from crdbexport_iceberg.catalog import check_reachable, opened, settings_of
from crdbexport_iceberg.stream_table import StreamTable

ENVIRONMENT = ("PYICEBERG_", "AWS_", "AZURE_", "GOOGLE_")


class IcebergSink(Sink):
    """Publishes every stream as an Iceberg table in one namespace of a catalog: every run, or the present state."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        namespace: str
        """The namespace for the tables, made when it is missing; dots separate levels."""
        catalog: str = "default"
        """The catalog's name, as in .pyiceberg.yaml and in environment variables of pyiceberg."""
        properties: dict[str, Secret] = {}
        """Properties of the catalog, over those that pyiceberg finds under its name."""
        mode: Literal["append", "merge"] = "append"
        """Keep every run, or the present state of each cluster."""
        staging_directory: Path | None = None
        """Where records wait for the commit; the system's directory for temporary files, if left out."""

    conformance: ClassVar[str] = "crdbexport_iceberg.conformance:IcebergConformance"
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._staging: Staging | None = None
        self._receipt: Receipt | None = None

    def secrets(self) -> Iterable[str]:
        yield from super().secrets()
        given = settings_of(self.config.catalog, self.config.properties)
        given |= {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT)}
        for name, value in given.items():
            if is_secret_setting(name):
                yield value
            yield from credentials_in(value)

    def preflight(self, run: Run) -> None:
        """Refuse a catalog that cannot be opened or reached, and tables that misfit."""
        if not all(self.config.namespace.split(".")):
            raise ConfigError("namespace has an empty level; name one such as crdb, or lake.crdb")
        check_reachable(self.config.catalog, self.config.properties)
        with self._tables(run) as tables:
            for table in tables:
                table.check()

    def open(self, run: Run) -> None:
        self._staging = Staging(run, f"{self.config.catalog}\0{self.config.namespace}", self.config.staging_directory)

    def write(self, batch: Batch) -> None:
        self._opened().write(batch)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            staging = self._opened()
            delivery = Delivery(run, outcome, staging, replaces=self.config.mode == "merge")
            with self._tables(run) as tables:
                artifacts = tuple(table.publish(delivery) for table in tables)
            self._receipt = Receipt(artifacts, sum(each.size_bytes or 0 for each in artifacts))
            staging.close()
        return self._receipt

    def abort(self) -> None:
        if self._staging is not None:
            self._staging.close()

    @contextmanager
    def _tables(self, run: Run) -> Iterator[Iterator[StreamTable]]:
        with opened(self.config.catalog, self.config.properties) as catalog:
            yield (StreamTable(catalog, self.config.namespace, stream, each) for stream, each in run.streams.items())

    def _opened(self) -> Staging:
        if self._staging is None:
            raise RuntimeError("the sink was not opened")
        return self._staging
