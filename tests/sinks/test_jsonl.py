from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pytest

from crdbexport.errors import ConfigError
from crdbexport.records import STREAMS
from crdbexport.sinks.base import Artifact
from crdbexport.sinks.json_lines import json_rows
from crdbexport.sinks.jsonl import JsonLinesSink
from tests.sinks.lake_support import (
    INT64_MAX,
    a_run,
    all_files,
    an_outcome,
    deliver,
    everything,
    jsonl,
    records,
    script,
)

SUFFIXES = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


def content(path: Path) -> bytes:
    with pa.input_stream(str(path)) as file:
        return bytes(file.read())


@pytest.mark.parametrize("compression", SUFFIXES)
def test_each_stream_is_a_file_of_lines(tmp_path: Path, compression: str) -> None:
    deliver(jsonl(tmp_path, compression=compression), a_run(), everything(a_run(), 9))
    for stream in STREAMS:
        path = tmp_path / stream / f"date=2026-11-23/prod.one{SUFFIXES[compression]}"
        lines = content(path).split(b"\n")
        assert lines == [*json_rows(records(stream, 9)), b""]


@pytest.mark.parametrize("compression", SUFFIXES)
def test_a_stream_without_rows_is_an_empty_file(tmp_path: Path, compression: str) -> None:
    deliver(jsonl(tmp_path, compression=compression), a_run(streams=["tables"]), [("tables", records("tables", 0))])
    [path] = (tmp_path / "tables").rglob("prod*")
    assert content(path) == b""


@pytest.mark.slow
@pytest.mark.parametrize("compression", SUFFIXES)
def test_equal_records_give_equal_bytes_however_they_are_batched(tmp_path: Path, compression: str) -> None:
    whole = records("tables", 3_000)
    for name, size in (("a", 3_000), ("b", 7), ("c", 1_024)):
        batches = [("tables", whole.slice(start, size)) for start in range(0, 3_000, size)]
        deliver(jsonl(tmp_path / name, compression=compression), a_run(streams=["tables"]), batches)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b") == all_files(tmp_path / "c")


def test_gzip_carries_no_time(tmp_path: Path) -> None:
    deliver(jsonl(tmp_path, compression="gzip"), a_run(streams=["tables"]), [("tables", records("tables", 5))])
    [path] = (tmp_path / "tables").rglob("*.gz")
    assert path.read_bytes()[4:8] == bytes(4)
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 5


@pytest.mark.parametrize("compression", SUFFIXES)
def test_duckdb_reads_the_tree(tmp_path: Path, compression: str) -> None:
    deliver(jsonl(tmp_path, compression=compression), a_run(), everything(a_run(), 8))
    columns = "max(size_bytes), count(*), epoch_us(min(extracted_at))"
    [found] = duckdb.sql(f"SELECT {columns} FROM read_json('{tmp_path}/tables/**/*.jsonl*')").fetchall()
    first = min(row["extracted_at"] for row in records("tables", 8).to_pylist())
    assert found == (INT64_MAX, 8, round(first.timestamp() * 1_000_000))


# -- standard output


def test_standard_output_gets_every_line_with_its_stream_first(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run = a_run(streams=["databases", "tables"])
    receipt = deliver(jsonl("-"), run, everything(run, 3))
    lines = capfdbinary.readouterr().out.splitlines(keepends=True)
    expected = [row + b"\n" for stream, data in everything(run, 3) for row in json_rows(data, stream=stream)]
    assert lines == expected
    assert [next(iter(json.loads(line))) for line in lines] == ["stream"] * 6
    assert receipt.artifacts == (
        Artifact("-", "databases", 3, sum(map(len, expected[:3]))),
        Artifact("-", "tables", 3, sum(map(len, expected[3:]))),
    )
    assert receipt.size_bytes == sum(map(len, expected))


def test_standard_output_gets_each_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Unclosed(raw), 1 << 20)))
    sink = jsonl("-")
    deliver(sink, a_run(), [("tables", records("tables", 1))], an_outcome())
    assert raw.getvalue().count(b"\n") == 1


class Unclosed(io.RawIOBase):
    """A raw stream that outlives the text wrapper around it."""

    def __init__(self, target: io.BytesIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._target.write(bytes(data))  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_sink_in_one_line() -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(**script("print", "2000"), **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith('{"stream":"tables",')
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "standard output was closed by its reader\n"
    assert process.returncode == 141


@pytest.mark.slow
def test_a_full_standard_output_is_an_error_of_storage() -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(**script("print", "1"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.stderr.startswith("standard output: No space left on device; free space, then run")
    assert process.returncode == 5


def test_compressed_standard_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave out `compression`"):
        jsonl("-", compression="gzip").preflight(run=a_run())


def test_a_process_without_standard_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ConfigError, match="this process has none"):
        jsonl("-").preflight(run=a_run())


def test_standard_output_takes_no_directory(tmp_path: Path) -> None:
    assert list(jsonl("-").directories()) == []
    assert list(jsonl(tmp_path).directories()) == [tmp_path]


def test_a_home_directory_may_be_abbreviated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(jsonl("~/lake").directories()) == [tmp_path / "lake"]


def test_options_are_typed() -> None:
    assert msgspec.convert({"path": "-"}, JsonLinesSink.Config) == JsonLinesSink.Config(path="-", compression="none")
    with pytest.raises(msgspec.ValidationError, match="compression"):
        msgspec.convert({"path": "x", "compression": "brotli"}, JsonLinesSink.Config)
