"""The sink: it finishes a file a stream on this machine, and uploads them together when the run commits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from crdbexport import Artifact, Batch, Outcome, Receipt, Run, Sink, Staging
from crdbexport.disk import storage_errors
from crdbexport.sinks.directory import StreamWriter
from crdbexport.sinks.jsonl import SUFFIXES, JsonLinesFile
from crdbexport.sinks.manifest import Manifest
from crdbexport.sinks.parquet import ParquetFile, ParquetSink
from crdbexport_object_store.options import ObjectStoreConfig, secrets_of
from crdbexport_object_store.publication import FinishedFile, Publication
from crdbexport_object_store.store import Store


class ObjectStoreSink(Sink):
    """Publishes to `URL/<stream>/date=<day>/<cluster>.<run_id>.<attempt>.parquet`, or JSON Lines."""

    Config = ObjectStoreConfig
    conformance: ClassVar[str] = "crdbexport_object_store.conformance:ObjectStoreConformance"
    config: ObjectStoreConfig

    def __init__(self, config: ObjectStoreConfig) -> None:
        super().__init__(config)
        self._writers: dict[str, StreamWriter] = {}
        self._rows: dict[str, int] = {}
        self._staging: Staging | None = None
        self._receipt: Receipt | None = None

    @property
    def suffix(self) -> str:
        """What the names of the files end in."""
        return ".parquet" if self.config.format == "parquet" else SUFFIXES[self.config.compression or "none"]

    def directories(self) -> Iterable[Path]:
        if self.config.scheme == "file":
            yield Path(unquote(urlsplit(self.config.url).path)).resolve()

    def secrets(self) -> Iterable[str]:
        yield from super().secrets()
        yield from secrets_of(self.config)

    def preflight(self, run: Run) -> None:
        """Refuse a store that cannot be reached, or does not let this account put, get, list and delete."""
        self._publication(run, Store(self.config, quick=True)).check()

    def open(self, run: Run) -> None:
        self._staging = Staging(run, self.config.url, self.config.staging_dir)
        with storage_errors(self._staging.directory):
            for stream, schema in run.streams.items():
                self._writers[stream] = self._writer(self._staged(stream), schema)
                self._rows[stream] = 0

    def write(self, batch: Batch) -> None:
        with storage_errors(self._staged(batch.stream)):
            self._writers[batch.stream].write(batch.data)
        self._rows[batch.stream] += batch.data.num_rows

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        if self._receipt is None:
            finished = dict(self._finished())
            publication = self._publication(run, Store(self.config))
            self._receipt = self._receipt_of(publication.commit(outcome, finished))
            self.abort()
        return self._receipt

    def abort(self) -> None:
        """Remove what is staged; what is published stays."""
        with ExitStack() as removed_at_last:
            if self._staging is not None:
                removed_at_last.callback(self._staging.close)
            for stream in list(self._writers):
                with suppress(Exception):  # What cannot be finished is removed all the same.
                    self._writers.pop(stream).close()

    def _publication(self, run: Run, store: Store) -> Publication:
        return Publication(store, run, sink=self.config.format, suffix=self.suffix)

    def _writer(self, path: Path, schema: pa.Schema) -> StreamWriter:
        if self.config.format == "jsonl":
            return JsonLinesFile(path, self.config.compression or "none")
        options = ParquetSink.Config(
            path=path,
            compression_level=self.config.compression_level,
            row_group_rows=self.config.row_group_rows,
        )
        return ParquetFile(path, schema, options)

    def _staged(self, stream: str) -> Path:
        if self._staging is None:
            raise RuntimeError(f"{type(self).__name__}: open(run) comes first")
        return self._staging.directory / stream

    def _finished(self) -> Iterator[tuple[str, FinishedFile]]:
        """Close every file; all of them are whole before the first is uploaded."""
        for stream, rows in self._rows.items():
            path = self._staged(stream)
            with storage_errors(path):
                self._writers.pop(stream).close()
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                yield stream, FinishedFile(path, rows, path.stat().st_size, digest)

    def _receipt_of(self, manifest: Manifest) -> Receipt:
        where = self.shown_target().rstrip("/")
        artifacts = tuple(
            Artifact(f"{where}/{file.path}", file.stream, file.rows, file.size_bytes, file.sha256)
            for file in manifest.files
        )
        return Receipt(artifacts, sum(file.size_bytes for file in manifest.files))
