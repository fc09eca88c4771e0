"""The sink: which tables there are below a root, and what of its options is secret."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, Literal

from crdbexport import Run, SinkConfig
from crdbexport.config import Secret
from crdbexport.sinks.tables import TablesSink, is_secret_setting
from crdbexport_deltalake.place import Place
from crdbexport_deltalake.stream_table import StreamTable

STORES = ("AWS_", "AZURE_", "GOOGLE_")


class DeltaLakeSink(TablesSink):
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
        super().preflight(run)

    def place(self) -> str:
        return self.config.root

    def tables(self, run: Run) -> AbstractContextManager[Iterator[StreamTable]]:
        return nullcontext(StreamTable(self._place, stream, schema) for stream, schema in run.streams.items())
