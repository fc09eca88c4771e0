"""Runs whose file operations are recorded: what a power cut may have left of them, and how they end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import crdbexport
from crdbexport import Batch, ExportConfig, RecordRefusedError, RunReport, Sink, SinkError, hookimpl
from crdbexport.config import Secret
from crdbexport.sinks.jsonl import JsonLinesSink
from tests.conftest import assert_adds_up
from tests.proof.crash_states import CrashState, Tree, crash_states, materialise
from tests.proof.recording import Recording
from tests.sinks.lake_support import promised

ENDED = "ended"
DRAWS = 60
NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)


class Picky(Sink):
    """Refuses one record."""

    def write(self, batch: Batch) -> None:
        if refused := [row["record_id"] for row in batch.rows() if row.get("table_name") == "users"]:
            raise RecordRefusedError(refused, "no users")


def is_down(*_: object, **__: object) -> None:
    raise SinkError("the target is down")


class Offering:
    @hookimpl
    def crdbexport_register_sinks(self, register: Callable[[str, type[Sink]], None]) -> None:
        register("picky", Picky)


@dataclass
class Runs:
    """Runs of one small cluster, in whatever directory is the current one."""

    url: str
    sinks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def export(self) -> RunReport:
        config = ExportConfig(
            url=(self.url,),
            cluster="c1",
            username="demo",
            password=Secret("demo"),
            run_id="r1",
            state_dir=Path("state"),
            sinks=self.sinks,
            no_plugins=True,
        )
        report = crdbexport.export(config, clock=lambda: NOW, plugins=[("offering", Offering())])
        assert_adds_up(report)
        return report


LAKE, PICKY = {"lake": {"type": "jsonl", "target": "lake"}}, {"picky": {"type": "picky"}}


@dataclass(frozen=True)
class Story:
    """The sinks of a run, its exit code, and whether all were down in an earlier attempt that read the cluster."""

    sinks: dict[str, dict[str, Any]]
    exit_code: int
    second_attempt: bool = False


STORIES = {
    "a run that is complete": Story(LAKE, 0),
    "a run with dead letters": Story({**LAKE, **PICKY}, 3),
    "a run whose sinks are fed later": Story({**LAKE, **PICKY}, 3, second_attempt=True),
}


@dataclass(frozen=True)
class Told:
    """A story that was recorded: what a power cut may have left of it, and how it ended."""

    states: list[CrashState]
    report: RunReport
    whole: dict[str, str]
    """The published files."""


@contextmanager
def within(place: Path) -> Iterator[Path]:
    """A fresh directory as the current one."""
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place
    shutil.rmtree(place)


def told(
    story: Story, runs: Runs, place: Path, seed: int, mistake: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Told:
    runs.sinks = story.sinks
    with within(place):
        if story.second_attempt:
            with pytest.MonkeyPatch.context() as patch:
                for sink in (Picky, JsonLinesSink):
                    patch.setattr(sink, "open", is_down)
                assert runs.export().exit_code == 5
        recording = Recording(place)
        with recording.of_this_process(), mistake():
            report = runs.export()
            recording.promise(ENDED)
        assert report.exit_code == story.exit_code, report.error
        states = crash_states(recording.disk, recording.steps, random.Random(seed), DRAWS)
        return Told(states, report, promised(Path("lake")))


@contextmanager
def in_tree(tree: Tree, place: Path) -> Iterator[None]:
    with within(place):
        materialise(tree, place)
        yield
