"""What an export leaves behind: its report, what it said, and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crdbexport import RunReport
from crdbexport.records import STREAMS
from tests.faults.fault_server import FaultServer

NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
Records = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Suffered:
    """An export that is over: its report, the server it met, where it wrote, and all that it said meanwhile."""

    report: RunReport
    server: FaultServer
    place: Path
    seconds: float
    said: str

    @property
    def lines(self) -> Records:
        return jsonl_records(self.place / "lines")


def files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def jsonl_records(directory: Path) -> Records:
    """The published records by stream; streams without a file are missing."""
    told: Records = {}
    for stream in STREAMS:
        for path in directory.glob(f"{stream}/date=*/*.jsonl"):
            told.setdefault(stream, []).extend(map(json.loads, path.read_text("utf-8").splitlines()))
    return told
