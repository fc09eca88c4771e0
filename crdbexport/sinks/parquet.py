"""The sink `parquet`: one Parquet file a stream, published together.

Equal records give equal bytes, however they were split into batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport.records import Stream
from crdbexport.sinks.base import SinkConfig
from crdbexport.sinks.directory import DirectorySink


class ParquetSink(DirectorySink):
    """Publishes to `PATH/<stream>/date=<day>/<cluster>.<run_id>.parquet`."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        """The directory to publish to."""
        compression_level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3
        """The effort of zstd."""
        row_group_rows: Annotated[int, msgspec.Meta(ge=1_000, le=1_000_000)] = 32_768
        """How many rows are held in memory per stream, and written as one row group."""

    type_name: ClassVar[str] = "parquet"
    conformance: ClassVar[str] = "crdbexport.testing.builtin:ParquetConformance"
    config: Config

    @property
    def directory(self) -> Path:
        return self.config.path

    @property
    def suffix(self) -> str:
        return ".parquet"

    def open_writer(self, path: Path, schema: pa.Schema) -> ParquetFile:
        return ParquetFile(path, schema, self.config)


class ParquetFile:
    """A Parquet file in the making, with row groups of exactly `row_group_rows` rows."""

    def __init__(self, path: Path, schema: pa.Schema, config: ParquetSink.Config) -> None:
        self._schema = schema
        self._group_rows = config.row_group_rows
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._file = pa.OSFile(str(path), "wb")
        # Without page checksums, flipped bits are read as other values.
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=config.compression_level,
            use_dictionary=True,
            write_statistics=True,
            write_page_checksum=True,
            store_schema=True,
        )

    def write(self, data: pa.RecordBatch) -> None:
        """Take a batch; whole row groups go to the file, the rest waits for the next batch."""
        start = 0
        while data.num_rows - start >= self._group_rows - self._waiting_rows:
            taken = self._group_rows - self._waiting_rows
            self._wait(data.slice(start, taken))
            self._flush()
            start += taken
        self._wait(data.slice(start))

    def close(self) -> None:
        """Write what waits and the footer; the file is closed even when that fails."""
        try:
            if self._waiting_rows:
                self._flush()
            self._writer.close()
        finally:
            # A writer that failed to close would try again, and fail loudly, when it is collected.
            self._writer.is_open = False
            self._file.close()

    def _wait(self, data: pa.RecordBatch) -> None:
        if data.num_rows:
            self._waiting.append(data)
            self._waiting_rows += data.num_rows

    def _flush(self) -> None:
        group = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._waiting_rows = [], 0
        # One chunk a column: page boundaries would otherwise follow those of the batches.
        self._writer.write_table(group.combine_chunks(), row_group_size=self._group_rows)


def checked_rows(file: BinaryIO, stream: Stream) -> int:
    """How many rows a published file holds, once every page of it is decoded and its checksum compared.

    Raises ValueError where it does not read back as a file of this stream; it may lack fields that the stream has
    gained since.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as content:
            schema = content.schema_arrow
            if not schema.equals(pa.schema([f for f in stream.schema if not f.nullable or f.name in schema.names])):
                raise ValueError("its schema is not that of the stream")
            rows: int = sum(content.read_row_group(index).num_rows for index in range(content.num_row_groups))
            if rows != content.metadata.num_rows:
                raise ValueError(f"{rows:,} rows were decoded where its footer tells {content.metadata.num_rows:,}")
            return rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"not a whole Parquet file: {str(error).partition(chr(10))[0]}") from error
