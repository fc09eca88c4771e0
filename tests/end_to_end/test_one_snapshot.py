"""A lake keeps one snapshot for a logical time, and whoever reads it meanwhile sees whole runs only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from crdbexport import RunReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

RUNS = 10


class Reader:
    """Reads one stream again and again, from a thread of its own, and notes how many rows of which runs it saw."""

    def __init__(self, path: Path) -> None:
        self.seen: list[Counter[str]] = []
        self.failures: list[Exception] = []
        self._path = path
        self._enough = threading.Event()

    def read(self) -> Counter[str]:
        """One look; a file that a newer run took away between the listing and the opening is looked for again."""
        while True:
            try:
                runs: pa.ChunkedArray = ds.dataset(self._path, format="parquet").to_table(["run_id"])["run_id"]
            except FileNotFoundError:
                continue
            return Counter(runs.to_pylist())

    def _work(self) -> None:
        try:
            while not self._enough.wait(0.002):
                self.seen.append(self.read())
        except Exception as error:
            self.failures.append(error)

    @contextmanager
    def reading(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._enough.set()
            thread.join()


@pytest.mark.slow
def test_ten_runs_of_one_logical_time_leave_one_snapshot_and_no_reader_misses_it(
    serve: Callable[[Sandbox], str], export: Callable[..., RunReport], tmp_path: Path
) -> None:
    url, lake = serve(Sandbox(World(1, 12))), tmp_path / "lake"
    rows = export(url, run_id="r0", logical_time="2026-03-05").streams["columns"].extracted
    reader = Reader(lake / "columns")
    with reader.reading():
        for number in range(1, RUNS):
            assert export(url, run_id=f"r{number}", logical_time="2026-03-05").exit_code == 0
    assert reader.failures == []
    assert len(reader.seen) > RUNS
    assert {count for look in reader.seen for count in look.values()} == {rows}
    assert all(reader.seen)
    assert len({run for look in reader.seen for run in look}) > 1
    assert reader.read() == {"r9": rows}
    assert [path.name for path in (lake / "_manifests").iterdir()] == ["c1.r9.json"]
    assert len(list(lake.rglob("*.parquet"))) == 6


@pytest.mark.slow
def test_another_logical_time_is_another_snapshot(
    serve: Callable[[Sandbox], str], export: Callable[..., RunReport], tmp_path: Path
) -> None:
    url = serve(Sandbox(World(1, 2)))
    for day in ("2026-03-05", "2026-03-06"):
        assert export(url, run_id=f"of-{day}", logical_time=day).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "lake/tables").iterdir()) == ["date=2026-03-05", "date=2026-03-06"]
    assert len(list((tmp_path / "lake/_manifests").iterdir())) == 2


@pytest.mark.slow
def test_the_same_run_again_writes_nothing_new(
    serve: Callable[[Sandbox], str], export: Callable[..., RunReport], tmp_path: Path
) -> None:
    app = Sandbox(World(1, 2))
    url = serve(app)
    first = export(url)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*.parquet")}
    requests = app.hits.total()
    assert export(url) == first
    assert app.hits.total() == requests
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*.parquet")} == before
    assert len(before) == 6
