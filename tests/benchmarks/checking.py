"""Counts the rows that a contender wrote: `python -m tests.benchmarks.checking DIR '{"tables": "tables/*.parquet"}'`.

A process of its own, so that the benchmark itself never holds pyarrow: its memory would be every contender's least.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.measuring import ContenderError
from tests.benchmarks.serving import ROOT


def check(directory: Path, patterns: Mapping[str, str], expected: Mapping[str, int]) -> None:
    """Raises `ContenderError` unless the files below `directory` hold exactly these numbers of rows."""
    command = [sys.executable, "-m", "tests.benchmarks.checking", str(directory), json.dumps(dict(patterns))]
    counted = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    if counted != dict(expected):
        raise ContenderError(f"{directory} holds {counted} rows where {dict(expected)} were to be read")


def rows_in(file: Path) -> int:
    """The rows of a Parquet or JSON Lines file."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: int = pq.read_metadata(file).num_rows
        return rows
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def main() -> None:
    directory, patterns = Path(sys.argv[1]), json.loads(sys.argv[2])
    counted = {name: sum(map(rows_in, directory.glob(pattern))) for name, pattern in patterns.items()}
    sys.stdout.write(json.dumps(counted))


if __name__ == "__main__":
    main()
