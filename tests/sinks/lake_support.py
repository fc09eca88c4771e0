"""Runs, records and readers for the tests of file sinks; run as a script, the processes that those tests kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from crdbexport.errors import CrdbExportError
from crdbexport.records import STREAMS
from crdbexport.sinks.base import Batch, Outcome, Receipt, Run, Sink
from crdbexport.sinks.jsonl import JsonLinesSink
from crdbexport.sinks.manifest import Manifest, read_manifest
from crdbexport.sinks.parquet import ParquetSink

DAY = datetime(2026, 11, 23, tzinfo=UTC)
INT64_MAX = 2**63 - 1
FILE_OPERATIONS = ("replace", "unlink", "rmdir", "mkdir", "fsync")


def a_run(run_id: str = "one", *, cluster: str = "prod", day: datetime = DAY, streams: Iterable[str] = STREAMS) -> Run:
    schemas = {name: STREAMS[name].schema for name in streams}
    return Run(cluster, run_id, day, DAY + timedelta(hours=1, microseconds=7), "sink", schemas)


def an_outcome(*, complete: bool = True, **others: Any) -> Outcome:
    return Outcome(complete=complete, **{"gaps": (), "coverage": {}, "rows": {}, **others})


def parquet(path: Path, **options: Any) -> ParquetSink:
    return ParquetSink(ParquetSink.Config(path=path, **options))


def jsonl(path: Path | str, **options: Any) -> JsonLinesSink:
    return JsonLinesSink(JsonLinesSink.Config(path=str(path), **options))


SINKS: dict[str, Callable[[Path], Sink]] = {"parquet": parquet, "jsonl": jsonl}


def records(stream: str, count: int, *, first: int = 0) -> pa.RecordBatch:
    """Records with every kind of value that a stream can hold: extremes, nulls, empty lists, hostile names."""
    fields = STREAMS[stream].schema
    rows = [{f.name: _value(f, number) for f in fields} for number in range(first, first + count)]
    return pa.RecordBatch.from_pylist(rows, schema=fields)


HOSTILE = (
    "users",
    "",
    "NULL",
    "../x",
    "a\x00b",
    "line\u2028sep\u2029\x85\r\n",
    "𝕏 é e\u0301",
    '"; --',
    "__HIVE_DEFAULT_PARTITION__",
)


def _value(field: pa.Field, number: int) -> Any:
    if field.name == "record_id":
        return f"{number:032x}"
    if field.nullable and number % 3 == 1:
        return None
    if pa.types.is_list(field.type):
        item = _scalar(field.type.value_type, number)
        return [item, item, None][: number % 4]
    return _scalar(field.type, number)


def _scalar(kind: pa.DataType, number: int) -> Any:
    values: dict[pa.DataType, Any] = {
        pa.string(): HOSTILE[number % len(HOSTILE)],
        pa.timestamp("us", "UTC"): DAY + timedelta(microseconds=number),
        pa.bool_(): number % 2 == 0,
        pa.int32(): number + 1,
        pa.int64(): (INT64_MAX, number, 0, -INT64_MAX - 1)[number % 4],
    }
    return values[kind]


def deliver(
    sink: Sink, run: Run, batches: Iterable[tuple[str, pa.RecordBatch]], outcome: Outcome | None = None
) -> Receipt:
    """What a lane does with a sink."""
    try:
        sink.preflight(run=run)
        sink.open(run=run)
        for sequence, (stream, data) in enumerate(batches):
            sink.write(batch=Batch(stream, sequence, data))
        receipt = sink.commit(outcome=outcome or an_outcome())
    except BaseException:
        sink.abort()
        raise
    assert receipt is not None
    return receipt


def everything(run: Run, count: int = 5) -> list[tuple[str, pa.RecordBatch]]:
    return [(stream, records(stream, count)) for stream in run.streams]


def manifests(lake: Path) -> list[Manifest]:
    return [read_manifest(path) for path in sorted((lake / "_manifests").glob("*"))]


def visible(lake: Path) -> dict[str, str]:
    """The published files, by path, with the SHA-256 of their bytes."""
    return {path: digest for path, digest in all_files(lake).items() if not path.startswith("_")}


def all_files(lake: Path) -> dict[str, str]:
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(lake.rglob("*"))
        if path.is_file()
    }


def promised(lake: Path) -> dict[str, str]:
    """The files that the manifests name, with the SHA-256 that they state."""
    return {file.path: file.sha256 for manifest in manifests(lake) for file in manifest.files}


def leftovers(lake: Path) -> list[str]:
    """What a finished run should not leave in staging."""
    return sorted(path.name for path in (lake / "_staging").iterdir() if path.name != "_commit.lock")


@contextmanager
def at_operation(number: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Call `act` instead of the `number`th file operation, counted from 1. Yields the counter."""
    originals = {name: getattr(os, name) for name in FILE_OPERATIONS}
    counter = [0]

    def patched(name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            counter[0] += 1
            if counter[0] == number:
                act()
            return originals[name](*args, **kwargs)

        return operation

    for name in FILE_OPERATIONS:
        setattr(os, name, patched(name))
    try:
        yield counter
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], Any]) -> bool:
    """Do `work` in a child; whether it lived to the end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(70)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.waitstatus_to_exitcode(status) == 70:
        raise SystemExit("the child failed by itself")
    return os.waitstatus_to_exitcode(status) == 0


TWO_STREAMS = ("databases", "tables")


def publish_new(lake: Path, kind: str) -> None:
    run = a_run("new", streams=TWO_STREAMS)
    deliver(SINKS[kind](lake), run, everything(run, 7))


def publish_old(lake: Path, kind: str) -> None:
    run = a_run("old", streams=(*TWO_STREAMS, "columns"))
    deliver(SINKS[kind](lake), run, everything(run, 5))


def recover(lake: Path, kind: str) -> None:
    kind = "parquet" if any(lake.rglob("*.parquet")) else kind  # A directory holds one format.
    """What the next run of anybody does before it writes."""
    sink, run = SINKS[kind](lake), a_run("next", cluster="another")
    sink.preflight(run=run)
    sink.open(run=run)
    sink.abort()


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    def doomed() -> None:
        with at_operation(number, _die):
            work()

    return forked(doomed)


def crash_everywhere(base: Path, kind: str) -> None:
    """Kill the second run of a snapshot at each of its file operations; one lake is left for each."""
    for lake in lakes(base, kind):
        if killed_at(int(lake.name), lambda lake=lake: publish_new(lake, kind)):
            return


def crash_twice(base: Path, kind: str, first: int) -> None:
    """Kill the second run at its `first` operation, then kill the one that recovers at each of its own."""
    for lake in lakes(base, kind):
        killed_at(first, lambda lake=lake: publish_new(lake, kind))
        if killed_at(int(lake.name), lambda lake=lake: recover(lake, kind)):
            return


def lakes(base: Path, kind: str) -> Iterator[Path]:
    """Lakes that hold the first run of a snapshot, named by the numbers from 1."""
    os.fsync = lambda descriptor: None  # A killed process loses nothing that it had not synced; a power cut would.
    with tempfile.TemporaryDirectory() as directory:
        publish_old(Path(directory), kind)
        for number in range(1, 1000):
            yield shutil.copytree(directory, base / f"{number:03}")


def hold(lake: Path, kind: str) -> None:
    """Open a run, write, say so, and wait to be killed."""
    sink = SINKS[kind](lake)
    run = a_run("held")
    sink.open(run=run)
    sink.write(batch=Batch("tables", 0, records("tables", 50)))
    print("held", flush=True)
    time.sleep(60)


def print_lines(count: int) -> None:
    """Write to standard output until its reader has gone."""
    sink = jsonl("-")
    run = a_run()
    batches = (("tables", records("tables", 20)) for _ in range(count))
    try:
        deliver(sink, run, batches)
    except CrdbExportError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def main(task: str, *arguments: str) -> None:
    match task, arguments:
        case "crash-everywhere", (base, kind):
            crash_everywhere(Path(base), kind)
        case "crash-twice", (base, kind, first):
            crash_twice(Path(base), kind, int(first))
        case "hold", (lake, kind):
            hold(Path(lake), kind)
        case "print", (count,):
            print_lines(int(count))
        case _:
            raise SystemExit(f"no such task: {task}")


def script(*arguments: str) -> dict[str, Any]:
    """What `subprocess` needs to run this file with the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return {"args": [sys.executable, __file__, *arguments], "env": environment}


if __name__ == "__main__":
    main(*sys.argv[1:])
