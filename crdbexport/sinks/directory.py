"""The base of sinks that publish one file a stream into a directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from crdbexport.disk import storage_errors
from crdbexport.errors import SinkRefusedError, shown
from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest
from crdbexport.sinks.publishing import Publication

if TYPE_CHECKING:
    import pyarrow as pa


class StreamWriter(Protocol):
    """Writes the file of one stream. `close` finishes the file, and frees it whatever happens."""

    def write(self, data: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


class DirectorySink(Sink, ABC):
    """Writes each stream into a file of its own, and publishes them together."""

    type_name: ClassVar[str]

    def __init__(self, config: SinkConfig) -> None:
        super().__init__(config)
        self._publication: Publication | None = None
        self._writers: dict[str, StreamWriter] = {}
        self._rows: dict[str, int] = {}
        self._published: Manifest | None = None

    @property
    @abstractmethod
    def directory(self) -> Path:
        """The directory as the user named it."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """What the names of the files end in."""

    @abstractmethod
    def open_writer(self, path: Path, schema: pa.Schema) -> StreamWriter:
        """A writer for a new file at `path`."""

    def directories(self) -> Iterable[Path]:
        return (self.directory.resolve(),)

    def preflight(self, run: Run) -> None:
        Lake(self.directory.absolute()).check(run, self.type_name)

    def open(self, run: Run) -> None:
        # Absolute, for a plugin on another thread may change the working directory.
        lake = Lake(self.directory.absolute())
        publication = Publication(lake, run, sink=self.type_name, suffix=self.suffix)
        self._publication = publication
        with storage_errors(lake.root):
            publication.open()
            self._rows = dict.fromkeys(run.streams, 0)
            self._published = publication.published
            if self._published is None:
                for stream, schema in run.streams.items():
                    self._writers[stream] = self.open_writer(publication.staged(stream), schema)

    def write(self, batch: Batch) -> None:
        publication = self._opened()
        if self._published is None:
            with storage_errors(publication.staged(batch.stream), publication.staged_bytes):
                self._writers[batch.stream].write(batch.data)
        self._rows[batch.stream] += batch.data.num_rows

    def commit(self, outcome: Outcome) -> Receipt:
        publication = self._opened()
        with storage_errors(self.directory, publication.staged_bytes):
            for stream in list(self._writers):
                self._writers.pop(stream).close()
            self._refuse_other_rows()
            return self._receipt(publication.commit(outcome, self._rows))

    def abort(self) -> None:
        for stream in list(self._writers):
            with suppress(Exception):  # What cannot be finished is removed all the same.
                self._writers.pop(stream).close()
        if self._publication is not None:
            with storage_errors(self.directory):
                self._publication.abort()

    def _refuse_other_rows(self) -> None:
        """A run that is published, and was read anew because its state was lost, is told as published only if it is."""
        if self._published is not None and self._published.rows != self._rows:
            raise SinkRefusedError(
                f"run {shown(self._published.run_id)} is published already, with other records than were read now; "
                "give another --run-id"
            )

    def _opened(self) -> Publication:
        if self._publication is None:
            raise RuntimeError(f"{type(self).__name__}: open(run) comes first")
        return self._publication

    def _receipt(self, manifest: Manifest) -> Receipt:
        artifacts = tuple(
            Artifact(str(self.directory / file.path), file.stream, file.rows, file.size_bytes, file.sha256)
            for file in manifest.files
        )
        return Receipt(artifacts, sum(file.size_bytes for file in manifest.files))
