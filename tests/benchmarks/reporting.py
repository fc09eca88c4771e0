"""What a benchmark tells: a table and claims for each scenario, the machine, the versions; as Markdown, JSON or PNG."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tests.benchmarks.measuring import Measured

DISTRIBUTIONS = ("crdbexport", "dlt", "httpx", "httptools", "msgspec", "pyarrow")
HEADS = ("wall s", "CPU s", "peak MiB")


@dataclass(frozen=True)
class Claim:
    """Something that a figure shall show: at least, or at most, so much."""

    what: str
    measured: float
    wanted: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def __str__(self) -> str:
        bound = "at most" if self.at_most else "at least"
        verdict = "holds" if self.holds else "**does not hold**"
        return f"{self.what}: {figure(self.measured)}, {bound} {figure(self.wanted)} wanted: {verdict}"


@dataclass(frozen=True)
class Section:
    """One scenario's outcome; the first column of `rows` names them, `bars` is what a plot shows of it."""

    title: str
    setting: str
    heads: Sequence[str]
    rows: Mapping[str, Sequence[float | str]]
    bars: Mapping[str, float]
    unit: str
    claims: Sequence[Claim] = ()

    def __str__(self) -> str:
        lines = [f"## {self.title}", "", self.setting, "", _line(["", *self.heads])]
        lines.append(_line(["---", *["---:"] * len(self.heads)]))
        lines += [_line([name, *map(figure, cells)]) for name, cells in self.rows.items()]
        return "\n".join([*lines, "", *(f"* {claim}" for claim in self.claims), *[""] * bool(self.claims)])


def figure(value: float | str) -> str:
    """A number with three digits that count."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(measured: Measured) -> tuple[float, float, float]:
    """What stands under `HEADS`."""
    return measured.wall_seconds, measured.cpu_seconds, measured.peak_mib


def surroundings(distributions: Sequence[str] = DISTRIBUTIONS) -> dict[str, str]:
    """The machine, the versions and the day."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPUs ({_processor()}), {memory:.0f} GiB, {platform.platform()}",
        "load before": load,
        "python": platform.python_version(),
        **_versions(distributions),
    }


def markdown(around: Mapping[str, str], sections: Sequence[Section]) -> str:
    facts = "\n".join(f"* {name}: {value}" for name, value in around.items())
    return "\n\n".join([facts, *(str(section).rstrip() for section in sections)]) + "\n"


def write(file: Path, around: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Write a report in the form that the file's suffix tells: `.md`, `.json` or `.png`."""
    match file.suffix:
        case ".json":
            told = [{**asdict(section), "holds": [claim.holds for claim in section.claims]} for section in sections]
            file.write_text(json.dumps({"surroundings": dict(around), "sections": told}, indent=1) + "\n")
        case ".png":
            from tests.benchmarks.plotting import plot

            plot(file, around, sections)
        case _:
            file.write_text(markdown(around, sections))


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _versions(distributions: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
