"""The built-in sinks under test, as any author would put theirs: `crdbexport plugins conformance parquet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crdbexport.sinks.base import Sink
from crdbexport.sinks.jsonl import JsonLinesSink
from crdbexport.sinks.parquet import ParquetSink
from crdbexport.sinks.webhook import WebhookSink
from crdbexport.sinks.webhook_endpoint import SECRET_VARIABLE
from crdbexport.testing.comparing import Rows
from crdbexport.testing.conformance import Capabilities, SinkConformance
from crdbexport.testing.receiver import Receiver, receiving


class ParquetConformance(SinkConformance):
    """Read as by whoever knows of no manifest."""

    capabilities = Capabilities(partitioned=True)
    wrong_options: ClassVar[dict[str, Any]] = {"compression_level": 99, "row_group_rows": 1}

    def make_sink(self, place: Path) -> Sink:
        return ParquetSink(ParquetSink.Config(path=place / "lake"))

    def read_back(self, place: Path) -> dict[str, Rows]:
        return _by_stream(place / "lake", _parquet)

    def read_day(self, place: Path, day: date) -> dict[str, Rows]:
        return _by_stream(place / "lake", _parquet, str(day))


class JsonLinesConformance(SinkConformance):
    """Whatever the compression."""

    capabilities = Capabilities(partitioned=True)
    wrong_options: ClassVar[dict[str, Any]] = {"compression": "brotli"}

    def make_sink(self, place: Path) -> Sink:
        return JsonLinesSink(JsonLinesSink.Config(path=str(place / "lines")))

    def read_back(self, place: Path) -> dict[str, Rows]:
        return _by_stream(place / "lines", _lines)

    def read_day(self, place: Path, day: date) -> dict[str, Rows]:
        return _by_stream(place / "lines", _lines, str(day))


class WebhookConformance(SinkConformance):
    """Against a receiver on loopback, with the secret in the URL, too, as many endpoints have it."""

    capabilities = Capabilities(append_only=True, files=False, remote=True)
    wrong_options: ClassVar[dict[str, Any]] = {"url": "ftp://hooks.example.com/crdb", "max_bytes": 1}
    canary = "whsec_Y3JkYmV4cG9ydC1jYW5hcnktNWRkNmMwYTEtYWJj"
    canary_variables = (*SinkConformance.canary_variables, SECRET_VARIABLE)

    @cached_property
    def _receivers(self) -> dict[Path, Receiver]:
        return {}

    @contextmanager
    def serve(self, place: Path) -> Iterator[None]:
        with receiving(self.canary) as self._receivers[place]:
            yield

    def make_sink(self, place: Path) -> Sink:
        return WebhookSink(
            WebhookSink.Config(url=f"{self._receivers[place].url}/{self.canary}?key={quote(self.canary)}")
        )

    def read_back(self, place: Path) -> dict[str, Rows]:
        return dict(self._receivers[place].rows())


def _by_stream(root: Path, read: Callable[[Path], Rows], day: str = "*") -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for path in sorted(root.glob(f"*/date={day}/*")):
        stream = path.parent.parent.name
        found[stream] = [*found.get(stream, ()), *read(path)]
    return found


def _parquet(path: Path) -> Rows:
    rows: Rows = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read().to_pylist()
    return rows


def _lines(path: Path) -> Rows:
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.input_stream(path, compression=compression) as file:
        return [msgspec.json.decode(line) for line in file.read().splitlines()]
