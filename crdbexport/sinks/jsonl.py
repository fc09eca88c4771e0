"""The sink `jsonl`: JSON Lines, into a directory or to standard output."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import msgspec
import pyarrow as pa

from crdbexport.disk import storage_errors
from crdbexport.errors import ConfigError, OutputClosedError
from crdbexport.records import Stream
from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.sinks.directory import DirectorySink
from crdbexport.sinks.json_lines import json_lines

STANDARD_OUTPUT = "-"
SUFFIXES = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}
_CHUNK_BYTES = 1 << 20


class JsonLinesConfig(SinkConfig, frozen=True, kw_only=True):
    path: str
    """The directory to publish to; `-` is standard output."""
    compression: Literal["none", "gzip", "zstd"] = "none"


class JsonLinesSink(Sink):
    """Publishes to `PATH/<stream>/date=<day>/<cluster>.<run_id>.jsonl`, or writes to standard output."""

    Config = JsonLinesConfig
    conformance: ClassVar[str] = "crdbexport.testing.builtin:JsonLinesConformance"

    def __init__(self, config: JsonLinesConfig) -> None:
        super().__init__(config)
        self._output: JsonLinesDirectory | StandardOutput
        self._output = StandardOutput(config) if config.path == STANDARD_OUTPUT else JsonLinesDirectory(config)

    def directories(self) -> Iterable[Path]:
        return self._output.directories()

    def preflight(self, run: Run) -> None:
        self._output.preflight(run)

    def open(self, run: Run) -> None:
        self._output.open(run)

    def write(self, batch: Batch) -> None:
        self._output.write(batch)

    def commit(self, outcome: Outcome) -> Receipt:
        return self._output.commit(outcome)

    def abort(self) -> None:
        self._output.abort()


class JsonLinesDirectory(DirectorySink):
    """One file of JSON Lines a stream, published together."""

    type_name: ClassVar[str] = "jsonl"
    config: JsonLinesConfig

    @property
    def directory(self) -> Path:
        return Path(self.config.path).expanduser()

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.config.compression]

    def open_writer(self, path: Path, schema: pa.Schema) -> JsonLinesFile:
        return JsonLinesFile(path, self.config.compression)


class JsonLinesFile:
    """A file of JSON Lines in the making. Equal lines give equal bytes: gzip's header carries no time."""

    def __init__(self, path: Path, compression: str) -> None:
        self._file = pa.OSFile(str(path), "wb")
        plain = compression == "none"
        self._lines = self._file if plain else pa.CompressedOutputStream(self._file, compression)

    def write(self, data: pa.RecordBatch) -> None:
        self._lines.write(json_lines(data))

    def close(self) -> None:
        """Write what the compression still holds; the file is closed even when that fails."""
        try:
            self._lines.close()
        finally:
            self._file.close()


def checked_rows(file: BinaryIO, stream: Stream, compression: str) -> int:
    """How many lines a published file holds, once each is known to be an object with the fields of the stream.

    Raises ValueError where it does not read back so; all lines may lack fields that the stream has gained since.
    """
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    expected: list[str] = []
    number = 0
    for number, line in enumerate(_lines(file, compression), 1):
        try:
            names = list(decode(line))
        except ValueError as error:
            raise ValueError(f"line {number:,} is not a JSON object") from error
        expected = expected or [f.name for f in stream.fields if not f.nullable or f.name in names]
        if names != expected:
            raise ValueError(f"line {number:,} does not have the fields of the stream")
    return number


def _lines(file: BinaryIO, compression: str) -> Iterator[bytes]:
    source = file if compression == "none" else pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
    rest = b""
    try:
        while chunk := source.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"it cannot be decompressed ({compression})") from error
    if rest:
        raise ValueError("its last line has no end")


class StandardOutput(Sink):
    """JSON Lines on standard output as they come, each with its stream; nothing is staged or taken back."""

    config: JsonLinesConfig

    def __init__(self, config: JsonLinesConfig) -> None:
        super().__init__(config)
        self._rows: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def preflight(self, run: Run) -> None:
        if self.config.compression != "none":
            raise ConfigError("jsonl:- writes plain lines; leave out `compression`, or pipe them through a compressor")
        if sys.stdout is None:
            raise ConfigError("jsonl:- needs a standard output, and this process has none")

    def open(self, run: Run) -> None:
        self._rows = Counter(dict.fromkeys(run.streams, 0))
        self._bytes = Counter()

    def write(self, batch: Batch) -> None:
        lines = json_lines(batch.data, stream=batch.stream)
        with storage_errors(Path("standard output")):
            _print(lines)
        self._rows[batch.stream] += batch.data.num_rows
        self._bytes[batch.stream] += lines.size

    def commit(self, outcome: Outcome) -> Receipt:
        artifacts = tuple(
            Artifact(STANDARD_OUTPUT, stream, rows, self._bytes[stream]) for stream, rows in self._rows.items()
        )
        return Receipt(artifacts, self._bytes.total())

    def abort(self) -> None:
        """Lines that were written stay written; a reader learns of the failure from the exit code."""


def _print(lines: pa.Buffer) -> None:
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        # What is still buffered would fail once more when the interpreter exits, and change the exit code.
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise OutputClosedError("standard output was closed by its reader") from error
