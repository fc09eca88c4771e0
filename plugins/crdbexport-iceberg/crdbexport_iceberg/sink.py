"""The sink: which tables there are in a namespace, and what of its options is secret."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from crdbexport import ConfigError, Run, SinkConfig
from crdbexport.config import Secret
from crdbexport.redaction import credentials_in
from crdbexport.sinks.tables import TablesSink, is_secret_setting
from crdbexport_iceberg.catalog import check_reachable, opened, settings_of
from crdbexport_iceberg.stream_table import StreamTable

ENVIRONMENT = ("PYICEBERG_", "AWS_", "AZURE_", "GOOGLE_")


class IcebergSink(TablesSink):
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
        super().preflight(run)

    def place(self) -> str:
        return f"{self.config.catalog}\0{self.config.namespace}"

    @contextmanager
    def tables(self, run: Run) -> Iterator[Iterator[StreamTable]]:
        with opened(self.config.catalog, self.config.properties) as catalog:
            yield (StreamTable(catalog, self.config.namespace, stream, each) for stream, each in run.streams.items())
