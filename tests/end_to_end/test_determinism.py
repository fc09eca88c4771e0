"""Equal answers give equal bytes, however the requests interleave and however Python hashes."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RunReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
SINKS = {
    "parquet": {"type": "parquet"},
    "plain": {"type": "jsonl"},
    "gzip": {"type": "jsonl", "compression": "gzip"},
    "zstd": {"type": "jsonl", "compression": "zstd"},
}


class Jittery(Sandbox):
    """Answers after a random while, so that answers overtake each other."""

    def __init__(self, seed: int) -> None:
        super().__init__(World(databases=1, tables=24, hostile_names=True))
        self._jitter = random.Random(seed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(self._jitter.random() / 300)
        await super().__call__(scope, receive, send)


def published(root: Path) -> dict[str, bytes]:
    """All that a reader finds below the directory, by path."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and "_staging" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_concurrency_and_latency_change_no_byte(
    serve: Callable[[Sandbox], str], export: Callable[..., RunReport], tmp_path: Path
) -> None:
    trees = []
    for concurrency in (1, 4, 16):
        root = tmp_path / str(concurrency)
        app = Jittery(seed=concurrency)
        report = export(
            serve(app),
            concurrency=concurrency,
            state_dir=root / "state",
            sinks={name: {**options, "target": str(root / "lake" / name)} for name, options in SINKS.items()},
            call={"clock": lambda: NOW},
        )
        assert report.exit_code == 3
        assert len(report.gaps) > 1
        assert app.max_in_flight <= concurrency
        trees.append(published(root / "lake"))
    assert len(trees[0]) == len(SINKS) * (6 + 1)
    assert {Path(name).suffix for name in trees[0]} == {".parquet", ".jsonl", ".gz", ".zst", ".json"}
    assert trees[0] == trees[1] == trees[2]


EXPORT = """
import sys
from datetime import UTC, datetime
from crdbexport import ExportConfig, export

export(
    ExportConfig(
        sandbox=True,
        run_id="r1",
        state_dir=sys.argv[1] + "/state",
        sinks={
            "lake": {"type": "parquet", "target": sys.argv[1] + "/published/lake"},
            "lines": {"type": "jsonl", "target": sys.argv[1] + "/published/lines"},
        },
    ),
    clock=lambda: datetime(2026, 3, 5, tzinfo=UTC),
).raise_for_status()
"""


@pytest.mark.slow
def test_the_hash_seed_of_python_changes_no_byte(tmp_path: Path) -> None:
    seeds = ("1", "2024")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT, str(tmp_path / seed)], env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in seeds
    ]
    assert [each.wait(60) for each in processes] == [0, 0]
    first, second = (published(tmp_path / seed / "published") for seed in seeds)
    assert len(first) == 2 * (6 + 1)
    assert first == second
