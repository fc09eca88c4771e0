"""A plugin as a stranger would write it, which only type-checks: `mypy --strict tests/typing`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

import crdbexport
from crdbexport import (
    Artifact,
    Batch,
    Coverage,
    ExportConfig,
    Gap,
    Outcome,
    Receipt,
    RecordRefusedError,
    Run,
    RunReport,
    Sink,
    SinkBusyError,
    SinkConfig,
    SinkError,
    SinkRefusedError,
    Transform,
    TransformConfig,
    hookimpl,
)


class MySink(Sink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        compression: str | None = None

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.rows = 0

    def preflight(self) -> None:
        if not self.config.path.is_dir():
            raise SinkRefusedError(f"{self.config.path} is no directory")

    def open(self, run: Run) -> None:
        for stream, schema in run.streams.items():
            names: list[str] = schema.names
            self.begin(stream, names, run.logical_time)

    def begin(self, stream: str, names: list[str], day: datetime) -> None: ...

    def write(self, batch: Batch) -> None:
        if batch.sequence > 1_000:
            raise SinkBusyError("too fast", retry_after=0.5)
        refused = [row["record_id"] for row in batch.rows() if len(row["database_name"]) > 100]
        if refused:
            raise RecordRefusedError(refused, "too long", rest_written=False)
        self.rows += batch.data.num_rows

    def commit(self, outcome: Outcome) -> Receipt:
        coverage: Coverage | None = outcome.coverage.get("tables")
        if coverage is not None and not coverage.covers("bank", "public", "accounts"):
            raise SinkError("not seen")
        gaps: tuple[Gap, ...] = outcome.gaps
        location = str(self.config.path / f"{len(gaps)}")
        return Receipt((Artifact(location, rows=self.rows, size_bytes=12),), size_bytes=12)

    def abort(self, error: BaseException) -> None: ...

    def shown_target(self) -> str:
        return self.config.path.name

    def directories(self) -> list[Path]:
        return [self.config.path]


class LeastSink(Sink):
    def write(self, batch: Batch) -> None: ...


class OtherArgumentsSink(Sink):
    def preflight(self, run: Run) -> None: ...

    def open(self) -> None: ...

    def write(self, run: Run, batch: Batch) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class Lower(Transform):
    class Config(TransformConfig, frozen=True, kw_only=True):
        field: str = "grantee"

    config: Config

    def apply(self, batch: Batch) -> pa.RecordBatch:
        return batch.data

    def rename(self, field: str, name: str) -> str:
        return name.lower() if field == self.config.field else name


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    register("mine", MySink)
    register("least", LeastSink)
    register("other", OtherArgumentsSink)


@hookimpl
def crdbexport_register_transforms(register: Callable[[str, type[Transform]], None]) -> None:
    register("lower", Lower)


class Observer:
    @hookimpl
    def crdbexport_run_started(self, run: Run) -> None:
        assert run.sink_name == ""

    @hookimpl
    def crdbexport_batch_delivered(self, sink_name: str, batch: Batch) -> None:
        rows: list[dict[str, Any]] = batch.rows()
        print(sink_name, len(rows))

    @hookimpl
    def crdbexport_run_finished(self, report: RunReport) -> None:
        print(report.status, report.exit_code)


def export_with_observer(directory: Path) -> RunReport:
    config = ExportConfig(sandbox=True, sinks={"mine": {"type": "mine", "path": directory}})
    report: RunReport = crdbexport.export(
        config, plugins=[("observer", Observer())], clock=lambda: datetime.now(UTC), watch=lambda progress: None
    )
    return report.raise_for_status()


def export_from_a_file(path: Path) -> int:
    config = crdbexport.load_config(path, concurrency=4)
    try:
        return crdbexport.export(config).exit_code
    except crdbexport.ConfigError as error:
        return error.exit_code
    except crdbexport.CrdbExportError as error:
        return error.exit_code


identity: str = crdbexport.record_id("prod", "tables", ("bank", "public", "accounts"))
