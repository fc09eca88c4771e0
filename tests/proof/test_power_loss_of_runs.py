"""A power cut at any moment of a run leaves a state that tells the truth, and out of which the run comes to its end.

The journal is taken for what SQLite promises; that everything it tells of is durable before it does is tried here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

import crdbexport
from crdbexport import RunReport
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.runs import litter
from crdbexport.pipeline.shrinking import Kept
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.state import Extraction
from crdbexport.report import SinkReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World
from tests.proof.conftest import Part
from tests.proof.crash_checks import Expected, next_run, of_tree
from tests.proof.crash_states import CrashState, in_memory
from tests.proof.recorded_runs import ENDED, STORIES, Runs, Told, in_tree, told
from tests.proof.recording import (
    JOURNALLED,
    no_sync_of_directories,
    no_sync_of_files,
    replaced,
)
from tests.sinks.lake_support import leftovers, promised, visible

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

RUN = "state/runs/c1.r1"
BASELINE = "state/clusters/c1.json"


@pytest.fixture
def runs() -> Iterator[Runs]:
    with SandboxServer(Sandbox(World(1, 2))) as server:
        yield Runs(server.url)


def violations(told: Told, state: CrashState) -> Iterator[str]:
    """What the state on disk tells that is not so, or does not tell any more."""
    journal = Path(RUN, "journal.db")
    sinks: dict[str, SinkReport] = {}
    if JOURNALLED in state.promised and not state.tree.get(str(journal)):
        yield "the journal is lost"
    elif state.tree.get(str(journal)):
        sinks = yield from of_the_journal(told, state)
    lake = {path.removeprefix("lake/"): data for path, data in state.tree.items() if path.startswith("lake/")}
    r1 = frozenset({"r1"})
    yield from of_tree(lake, told.whole, Expected((r1,)) if "lake" in sinks else Expected(optional=r1))
    yield from of_the_baseline(told, state)


def of_the_journal(told: Told, state: CrashState) -> Iterator[str]:
    journal = Journal(Path(RUN, "journal.db"))
    try:
        extraction = journal.document("extraction", Extraction)
        report, sinks = journal.document("report", RunReport), journal.sinks(SinkReport)
    finally:
        journal.close()
    if extraction is not None:
        try:
            assert list(Spool(Path(RUN, "spool"), extraction.batches).read())
        except crdbexport.CrdbExportError as error:
            yield f"the spool is not whole: {error}"
    for name, sink in sinks.items():
        letters = sum(counts.dead_lettered for counts in sink.streams.values())
        kept = state.tree.get(f"{RUN}/dead_letters/{name}.jsonl") or b""
        if letters != kept.count(b"\n"):
            yield f"dead letters of {name} are lost"
    if ENDED in state.promised and report != told.report:
        yield "the report is lost"
    return sinks


def of_the_baseline(told: Told, state: CrashState) -> Iterator[str]:
    data = state.tree.get(BASELINE)
    if data is not None:
        try:
            msgspec.json.decode(data, type=Kept)
        except msgspec.MsgspecError:
            yield "the baseline is torn"
    elif ENDED in state.promised:
        yield "the baseline is lost"


def after_another_attempt(told: Told, runs: Runs) -> Iterator[str]:
    """What is wrong once the same command was given again."""
    try:
        report = runs.export()
    except crdbexport.CrdbExportError as error:
        yield f"{type(error).__name__}: {error}"
        return
    if (report.exit_code, report.streams) != (told.report.exit_code, told.report.streams):
        yield f"the next attempt ends with {report.exit_code}: {report.error}"
    if visible(Path("lake")) != told.whole or promised(Path("lake")) != told.whole:
        yield "other files are published than by a run that nothing interrupts"
    next_run(Path("lake"))  # A run that has nothing to do does not look after the lake.
    if left := [*leftovers(Path("lake")), *litter(Path("state"))]:
        yield f"{left} are left over"


def checked(told: Told, tried: list[CrashState], place: Path) -> list[str]:
    found: list[str] = []
    for state in tried:
        with in_tree(state.tree, place):
            found += list(violations(told, state))[:1]
    return found


def test_whenever_the_power_fails_the_state_of_a_run_tells_the_truth(
    runs: Runs, part: Part, tell: Callable[[str], None]
) -> None:
    started, count, again, found = time.monotonic(), 0, 0, []
    for name, story in STORIES.items():
        with in_memory() as memory:
            place = memory / "place"
            of_story = told(story, runs, place, part.seed)
            tried = part.of(of_story.states, at_least=60)
            count += len(tried)
            found += [f"{name}: {each}" for each in checked(of_story, tried, place)]
            for state in random.Random(part.seed).sample(tried, part.amount(100, at_least=5)):
                again += 1
                with in_tree(state.tree, place):
                    found += [f"{name}: {each}" for each in after_another_attempt(of_story, runs)]
    tell(
        f"power cuts: {count:,} states of {len(STORIES)} runs, {again} of them continued, {len(found)} violations, "
        f"{time.monotonic() - started:.0f} s"
    )
    assert found == []
    assert count >= part.amount(2_000)


def spool_is_not_synced() -> AbstractContextManager[None]:
    """A planted mistake: the journal tells of batches that are not durable."""
    return replaced(Spool, "sync", lambda spool: None)


MISTAKES = {
    "files are not synced": no_sync_of_files,
    "directories are not synced": no_sync_of_directories,
    "the spool is not synced": spool_is_not_synced,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str, runs: Runs, part: Part, tell: Callable[[str], None]) -> None:
    with in_memory() as memory:
        of_story = told(STORIES["a run with dead letters"], runs, memory / "place", part.seed, MISTAKES[mistake])
        tried = random.Random(part.seed).sample(
            of_story.states, min(len(of_story.states), part.amount(1_000, at_least=200))
        )
        found = checked(of_story, tried, memory / "place")
    tell(f"power cuts where {mistake}: {len(found):,} violations in {len(tried):,} states of a run")
    assert found
