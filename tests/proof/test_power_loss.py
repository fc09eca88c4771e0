"""A power cut at any moment of a publication leaves whole runs only, and what was promised is there."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from crdbexport.disk import make_directories
from crdbexport.errors import SnapshotKeptError
from crdbexport.records import STREAMS
from crdbexport.sinks import publishing, recovery
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import read_manifest, write_manifest
from crdbexport.sinks.retention import expire
from tests.proof.conftest import Part
from tests.proof.crash_checks import Expected, a_sweep, after, next_run, of_tree
from tests.proof.crash_states import CrashState, crash_states, in_memory, materialise
from tests.proof.recording import Recording, no_sync_of_directories, no_sync_of_files, replaced
from tests.sinks.lake_support import DAY, SINKS, TWO_STREAMS, a_run, an_outcome, deliver, everything, promised

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

COMMITTED = "committed"
DRAWS = 300


def publish(lake: Path, run_id: str, *, kind: str = "jsonl", complete: bool = True, days: int = 0) -> None:
    run = a_run(run_id, day=DAY + timedelta(days=days), streams=STREAMS if run_id != "few" else TWO_STREAMS)
    deliver(SINKS[kind](lake), run, everything(run, 3 + len(run_id)), an_outcome(complete=complete))


@dataclass(frozen=True)
class Story:
    """A lake, what happens to it, and which runs it shows before and after that is promised to be done."""

    work: Callable[[Path], None]
    before: Expected
    after: Expected
    prepare: Callable[[Path], None] = lambda lake: None


def days(lake: Path) -> None:
    for number in range(3):
        publish(lake, f"day-{number}", days=number)


def kept_out(lake: Path) -> None:
    with pytest.raises(SnapshotKeptError):
        publish(lake, "new", complete=False)


def killed_half_way(lake: Path) -> None:
    """Leave what a process leaves that dies between the renames of its files."""
    publish(lake, "old")
    publish(lake.with_name("elsewhere"), "new")
    source, target = Lake(lake.with_name("elsewhere")), Lake(lake)
    [manifest] = source.manifests_of(None)
    target.staging("prod.new").mkdir()
    for file in manifest.files:
        source.place(file).rename(target.staged("prod.new", file.stream))
    source.manifest("prod.new").rename(target.prepared("prod.new"))
    first = manifest.files[0]
    target.staged("prod.new", first.stream).rename(target.place(first))


def one_of(*runs: str) -> Expected:
    return Expected((frozenset(runs),))


OLD, NEW, EITHER = one_of("old"), one_of("new"), one_of("old", "new")
KEPT = frozenset({"day-2"})

STORIES = {
    "the first run of a lake": Story(lambda lake: publish(lake, "new"), Expected(optional=frozenset({"new"})), NEW),
    "a run in the place of another": Story(
        lambda lake: publish(lake, "new"), EITHER, NEW, lambda lake: publish(lake, "old")
    ),
    "a run in the place of another, in Parquet": Story(
        lambda lake: publish(lake, "new", kind="parquet"),
        EITHER,
        NEW,
        lambda lake: publish(lake, "old", kind="parquet"),
    ),
    "an incomplete run after a complete one": Story(kept_out, OLD, OLD, lambda lake: publish(lake, "old")),
    "an incomplete run in the place of another": Story(
        lambda lake: publish(lake, "new", complete=False),
        EITHER,
        NEW,
        lambda lake: publish(lake, "old", complete=False),
    ),
    "a run of another day": Story(
        lambda lake: publish(lake, "new", days=1),
        Expected(OLD.snapshots, frozenset({"new"})),
        Expected((*OLD.snapshots, *NEW.snapshots)),
        lambda lake: publish(lake, "old"),
    ),
    "two snapshots that expire": Story(
        lambda lake: expire(Lake(lake), keep=1),
        Expected((KEPT,), frozenset({"day-0", "day-1"})),
        Expected((KEPT,)),
        days,
    ),
    "a killed run that the next one finishes": Story(next_run, EITHER, NEW, killed_half_way),
}


def told(
    story: Story, place: Path, part: Part, mistake: Callable[[], AbstractContextManager[None]] = nullcontext
) -> tuple[list[CrashState], dict[str, str]]:
    """The states that a power cut during the story may leave, and every file that a whole run has in it."""
    lake = place / "lake"
    lake.mkdir()
    story.prepare(lake)
    whole = promised(lake)
    recording = Recording(lake)
    with recording.of_this_process(), mistake():
        story.work(lake)
        recording.promise(COMMITTED)
    whole |= promised(lake)
    states = crash_states(recording.disk, recording.steps, random.Random(part.seed), DRAWS)
    shutil.rmtree(lake)
    return states, whole


def violations(states: list[CrashState], story: Story, whole: dict[str, str], place: Path) -> list[str]:
    """What is wrong, a line for each state of which something is."""
    found = []
    for number, state in enumerate(states):
        expected = story.after if COMMITTED in state.promised else story.before
        problems = list(of_tree(state.tree, whole, expected))
        if not problems:
            lake = place / "lake"
            lake.mkdir()
            materialise(state.tree, lake)
            problems = list(after(a_sweep if number % 3 == 0 else next_run, lake, whole, expected))
            shutil.rmtree(lake)
        found += problems[:1]
    return found


def manifest_first() -> AbstractContextManager[None]:
    """A planted mistake: the manifest appears before the files that it names."""

    def hasty(lake: Lake, stem: str) -> None:
        make_directories(lake.manifests)
        write_manifest(read_manifest(lake.prepared(stem)), lake.manifest(stem), via=lake.staging(stem) / "manifest.new")
        recovery.roll_forward(lake, stem)

    return replaced(publishing, "roll_forward", hasty)


def test_whenever_the_power_fails_a_lake_holds_whole_runs_and_what_was_promised(
    part: Part, tell: Callable[[str], None]
) -> None:
    started, count, found = time.monotonic(), 0, []
    for name, story in STORIES.items():
        with in_memory() as place:
            states, whole = told(story, place, part)
            tried = part.of(states, at_least=40)
            count += len(tried)
            found += [f"{name}: {each}" for each in violations(tried, story, whole, place)]
    tell(
        f"power cuts: {count:,} states of {len(STORIES)} stories of a lake, {len(found)} violations, "
        f"{time.monotonic() - started:.0f} s"
    )
    assert found == []
    assert count >= part.amount(10_000)


MISTAKES = {
    "files are not synced": no_sync_of_files,
    "directories are not synced": no_sync_of_directories,
    "the manifest comes first": manifest_first,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str, part: Part, tell: Callable[[str], None]) -> None:
    story = STORIES["a run in the place of another"]
    with in_memory() as place:
        states, whole = told(story, place, part, MISTAKES[mistake])
        tried = random.Random(part.seed).sample(states, min(len(states), part.amount(1_000, at_least=200)))
        found = violations(tried, story, whole, place)
    tell(f"power cuts where {mistake}: {len(found):,} violations in {len(tried):,} states")
    assert found
