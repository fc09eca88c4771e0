"""Small sinks that do everything right, from which the twins differ in one thing each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from crdbexport import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.file_names import escaped, file_stem
from crdbexport.testing import Capabilities, SinkConformance

Rows = dict[str, list[dict[str, Any]]]


class GoodSink(Sink):
    """One JSON document a run, renamed into place; a later run of the snapshot takes the place of the earlier."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        token: str = ""
        compression: Literal["none"] = "none"

    config: Config
    rows: Rows

    def directories(self) -> Iterable[Path]:
        return (self.config.path,)

    def open(self, run: Run) -> None:
        self.run = run
        self.rows = {stream: [] for stream in run.streams}

    def write(self, batch: Batch) -> None:
        rows = list(batch.rows())
        self.rows[batch.stream].extend(rows)

    def commit(self) -> Receipt:
        self.publish()
        return self.receipt()

    def abort(self, error: BaseException) -> None:
        self.rows = {}

    def publish(self) -> None:
        replaced = self.replaced()
        self.put(self.stem(), self.document())
        for path in replaced:
            path.unlink()

    def put(self, stem: str, document: dict[str, Any]) -> None:
        """Let the document appear at once."""
        directory = self.directory()
        directory.mkdir(parents=True, exist_ok=True)
        new = directory / f".{stem}.new"
        try:
            new.write_bytes(msgspec.json.encode(document))
            new.replace(directory / f"{stem}.json")
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def directory(self) -> Path:
        """Where the run's document is."""
        return self.config.path

    def document(self) -> dict[str, Any]:
        run = self.run
        return {"cluster": run.cluster, "run": run.run_id, "time": run.logical_time.isoformat(), "streams": self.rows}

    def replaced(self) -> list[Path]:
        """The documents of earlier runs whose place this run takes."""
        found = sorted(self.directory().glob("*.json"))
        return [path for path in found if self.replaces(json.loads(path.read_bytes()))]

    def replaces(self, other: dict[str, Any]) -> bool:
        mine = self.document()
        same = all(other[key] == mine[key] for key in ("cluster", "time"))
        return same and other["run"] != mine["run"]

    def stem(self) -> str:
        return file_stem(self.run.cluster, self.run.run_id)

    def receipt(self) -> Receipt:
        location = str(self.directory())
        return Receipt(tuple(Artifact(location, stream, len(rows)) for stream, rows in self.rows.items()))


def rows_in(directory: Path, pattern: str = "*.json") -> Rows:
    """The rows of each stream in the documents below a directory."""
    found: Rows = {}
    for path in sorted(directory.glob(pattern)):
        for stream, rows in json.loads(path.read_bytes())["streams"].items():
            found.setdefault(stream, []).extend(rows)
    return found


class GoodConformance(SinkConformance):
    sink: ClassVar[type[Sink]] = GoodSink
    wrong_options: ClassVar[dict[str, Any]] = {"compression": "lzma"}

    def make_sink(self, place: Path) -> Sink:
        return self.sink(self.sink.Config(path=place / "out", token=self.canary))  # type: ignore[call-arg]

    def read_back(self, place: Path) -> Rows:
        return rows_in(place / "out")


class UpsertSink(GoodSink):
    """One JSON document a cluster, with the present state of everything that runs have covered."""

    def commit(self, outcome: Outcome) -> Receipt:  # type: ignore[override]
        path = self.config.path / f"{self.stem()}.json"
        state: Rows = json.loads(path.read_bytes())["streams"] if path.exists() else {}
        merged = {stream: self.merged(state.get(stream, []), stream, outcome) for stream in {*state, *self.rows}}
        self.put(self.stem(), {**self.document(), "streams": merged})
        return self.receipt()

    def merged(self, held: list[dict[str, Any]], stream: str, outcome: Outcome) -> list[dict[str, Any]]:
        seen = {row["record_id"] for row in self.rows.get(stream, ())}
        kept = [row for row in held if row["record_id"] not in seen and not self.gone(row, stream, outcome)]
        return kept + self.rows.get(stream, [])

    def gone(self, row: dict[str, Any], stream: str, outcome: Outcome) -> bool:
        names = [row.get(name) for name in ("database_name", "schema_name", "table_name")]
        return stream in outcome.coverage and outcome.coverage[stream].covers(*names)  # type: ignore[arg-type]

    def stem(self) -> str:
        return escaped(self.run.cluster)


class UpsertConformance(GoodConformance):
    sink = UpsertSink
    capabilities = Capabilities(upsert=True)


class AppendSink(GoodSink):
    """One JSON document a run; every run stays."""

    def replaces(self, other: dict[str, Any]) -> bool:
        return False


class AppendConformance(GoodConformance):
    sink = AppendSink
    capabilities = Capabilities(append_only=True)


class LatestSink(AppendSink):
    """One JSON document a cluster: that of its latest run."""

    def stem(self) -> str:
        return escaped(self.run.cluster)


class LatestConformance(GoodConformance):
    sink = LatestSink
    capabilities = Capabilities(latest_only=True)


class PartitionedSink(GoodSink):
    """One JSON document a run, in the directory of its day."""

    def directory(self) -> Path:
        return self.config.path / f"date={self.day()}"

    def day(self) -> date:
        return self.run.logical_time.date()


class PartitionedConformance(GoodConformance):
    sink = PartitionedSink
    capabilities = Capabilities(partitioned=True)

    def read_back(self, place: Path) -> Rows:
        return rows_in(place / "out", "*/*.json")

    def read_day(self, place: Path, day: date) -> Rows:
        return rows_in(place / "out" / f"date={day}")
