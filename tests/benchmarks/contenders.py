"""Who is measured: each a command of its own, and where its rows are to be found."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.checking import check
from tests.benchmarks.measuring import Measured, measure

STREAMS = ("databases", "database_grants", "tables", "columns", "indexes", "table_grants")
RUN = (sys.executable, "-m")
DLT_TABLES = {
    "databases": "database_details",
    "database_grants": "database_grants__privileges",
    "tables": "table_details",
    "columns": "table_details__columns",
    "indexes": "table_details__indexes",
    "table_grants": "table_details__grants__privileges",
}


@dataclass(frozen=True)
class Contender:
    """A command, to which `URL`, `DIR` and `STATE` are given; `patterns` finds the files of each stream below DIR."""

    command: Sequence[str]
    patterns: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, url: str, expected: Mapping[str, int]) -> Measured:
        """Measure one run against a server, and check that it came out with all rows."""
        work = Path(tempfile.mkdtemp(prefix="crdbexport-bench-"))
        try:
            places = {"URL": url, "DIR": str(work / "out"), "STATE": str(work / "state")}
            command = [each.format_map(places) for each in self.command]
            environment = {name: value.format_map(places) for name, value in self.environment.items()}
            measured = measure(command, work / "log", environment)
            check(work / "out", self.patterns, expected)
            return measured
        finally:
            shutil.rmtree(work)


EXPORT = ("export", "--url", "{URL}", "--cluster", "bench", "--username", "demo", "--state-dir", "{STATE}")


def crdbexport(*options: str, sink: str = "parquet", program: Sequence[str] = (*RUN, "crdbexport")) -> Contender:
    """A whole export as its users run it, with every safety on; `options` are further ones of its command line."""
    command = (*program, *EXPORT, "--sink", f"{sink}:{{DIR}}", "--quiet", *options)
    patterns = {stream: f"{stream}/*/*.{sink}" for stream in STREAMS}
    return Contender(command, patterns, {"CRDBEXPORT_PASSWORD": "demo"})


def floor(concurrency: int = 8) -> Contender:
    """The throw-away script."""
    command = (*RUN, "tests.benchmarks.floor", "{URL}", "{DIR}", f"--concurrency={concurrency}")
    return Contender(command, {stream: f"{stream}.parquet" for stream in STREAMS})


def dlt(*, parallel: bool, workers: int | None = None) -> Contender:
    """dlt with its own defaults, or with more workers than it has by itself."""
    command = (*RUN, "tests.benchmarks.dlt_rest_api", "{URL}", "{DIR}", *(["--parallel"] if parallel else []))
    environment = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": "{STATE}"}
    if workers is not None:
        environment |= {"EXTRACT__WORKERS": str(workers), "EXTRACT__MAX_PARALLEL_ITEMS": str(4 * workers)}
    return Contender(command, {each: f"cluster/{name}/*.parquet" for each, name in DLT_TABLES.items()}, environment)
