"""`jsonl` beside what one writes by hand: rows as dictionaries, encoded by msgspec into one file."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa

from crdbexport import Sink
from crdbexport.sinks.jsonl import JsonLinesSink
from tests.benchmarks.sinks.target import Target


class Line(msgspec.Struct):
    run_id: str


def sink(target: Target) -> Sink:
    return JsonLinesSink(JsonLinesSink.Config(path=str(target.directory)))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    encoder = msgspec.json.Encoder()
    with (target.directory / "columns.jsonl").open("wb") as file:
        for batch in data:
            file.write(encoder.encode_lines(batch.to_pylist()))


def run_ids(target: Target) -> Iterator[str]:
    decode = msgspec.json.Decoder(Line).decode
    for path in target.directory.rglob("*.jsonl"):
        with path.open("rb") as lines:
            yield from (decode(line).run_id for line in lines)
