"""Run as a script: one engine that reads a lake again and again, and tells in the end what it saw.

    python -m tests.proof.reader ENGINE LAKE

It says `ready` once it has seen something, and ends with its `Seen` when its standard input does.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

STREAMS = ("tables", "columns")
VANISHED = ("no such file", "does not exist", "cannot open file")


class Seen(msgspec.Struct):
    """What a reader saw: each view is of one stream.

    `both` are views of two whole runs, for a moment that both are there; `again` counts the times that a file which
    was listed had been superseded when it was opened.
    """

    engine: str
    views: int = 0
    both: int = 0
    again: int = 0
    runs: int = 0
    partial: list[str] = []


def rows_of(run_id: str) -> int:
    """How many rows the run holds of each stream."""
    return 30 + int(run_id.removeprefix("r")) % 17


def duckdb_runs(lake: Path, stream: str) -> dict[str, int]:
    import duckdb

    question = "select run_id, count(*) from read_parquet(?) group by all"
    with duckdb.connect(config={"threads": 1}) as connection:
        return dict(connection.execute(question, [f"{lake}/{stream}/**/*.parquet"]).fetchall())


def polars_runs(lake: Path, stream: str) -> dict[str, int]:
    import polars

    frame = polars.read_parquet(f"{lake}/{stream}/**/*.parquet", columns=["run_id"])
    return dict(frame["run_id"].value_counts().iter_rows())


def pyarrow_runs(lake: Path, stream: str) -> dict[str, int]:
    import pyarrow.dataset as ds

    counted = ds.dataset(lake / stream, format="parquet").to_table(["run_id"])["run_id"].value_counts()
    return {each["values"].as_py(): each["counts"].as_py() for each in counted}


ENGINES: dict[str, Callable[[Path, str], dict[str, int]]] = {
    "DuckDB": duckdb_runs,
    "Polars": polars_runs,
    "PyArrow": pyarrow_runs,
}


def read(engine: str, lake: Path, enough: threading.Event) -> Seen:
    seen, runs = Seen(engine), set()
    for stream in itertools.cycle(STREAMS):
        try:
            view = ENGINES[engine](lake, stream)
        except Exception as error:
            if any(words in str(error).lower() for words in VANISHED):
                seen.again += 1
            else:
                seen.partial.append(f"{stream}: {type(error).__name__}: {error}"[:300])
            continue
        _note(seen, stream, view)
        runs.update(view)
        seen.runs = len(runs)
        if seen.views == len(STREAMS):
            print("ready", flush=True)
        if enough.is_set():
            return seen
    return seen


def _note(seen: Seen, stream: str, view: dict[str, int]) -> None:
    seen.views += 1
    seen.both += len(view) > 1
    if not view or any(rows_of(run_id) != rows for run_id, rows in view.items()):
        seen.partial.append(f"{stream}: {view}"[:300])


def main() -> None:
    enough = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        enough.set()

    threading.Thread(target=wait, daemon=True).start()
    seen = read(sys.argv[1], Path(sys.argv[2]), enough)
    print(msgspec.json.encode(seen).decode(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
