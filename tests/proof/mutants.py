"""Mistakes that a proof must find, planted in a run before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from crdbexport.pipeline.answers import Answers
from crdbexport.pipeline.lane import Lane
from crdbexport.pipeline.state import RunRecord, RunState
from crdbexport.sinks import publishing, recovery
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import Manifest, read_manifest, write_manifest
from crdbexport.sinks.publishing import Publication


class Mutant(NamedTuple):
    """`plant` makes the mistake; points with `near` in their names are where it may show."""

    plant: Callable[[], None]
    near: str


def _publish_by(roll_forward: Callable[[Lake, str], None]) -> None:
    publishing.roll_forward = roll_forward
    recovery.roll_forward = roll_forward


def manifest_before_files() -> None:
    right = recovery.roll_forward

    def roll_forward(lake: Lake, stem: str) -> None:
        lake.manifests.mkdir(exist_ok=True)
        write_manifest(read_manifest(lake.prepared(stem)), lake.manifest(stem), via=lake.staging(stem) / "early")
        right(lake, stem)

    _publish_by(roll_forward)


def superseded_run_removed_first() -> None:
    right = recovery.roll_forward

    def roll_forward(lake: Lake, stem: str) -> None:
        for manifest in list(recovery.same_snapshot(lake, read_manifest(lake.prepared(stem)))):
            recovery.set_aside(lake, stem, [manifest])
            recovery.remove_files(lake.place(file) for file in manifest.files)
        right(lake, stem)

    _publish_by(roll_forward)


def files_before_prepared_manifest() -> None:
    right = Publication._publish

    def publish(publication: Publication, manifest: Manifest) -> None:
        for file in manifest.files:
            place = publication._lake.place(file)
            place.parent.mkdir(parents=True, exist_ok=True)
            publication.staged(file.stream).replace(place)
        right(publication, manifest)

    Publication._publish = publish


def commit_noted_before_it_happens() -> None:
    right = Lane._call

    def call(lane: Lane, method: str, **arguments: Any) -> Any:
        if method == "commit":
            lane._on_commit(lane)
        return right(lane, method, **arguments)

    Lane._call = call


def answers_forgotten() -> None:
    right, asked = Answers.keep, []

    def keep(answers: Answers, question: str, answer: bytes) -> None:
        asked.append(question)
        if len(asked) % 3:
            right(answers, question, answer)

    Answers.keep = keep


def times_of_first_attempt_forgotten() -> None:
    def begin(state: RunState, record: RunRecord) -> RunRecord:
        state.journal.keep_document("run", record)
        return record

    RunState.begin = begin


def reported_before_it_is_cleared() -> None:
    right = RunState.keep_report

    def keep_report(state: RunState, report: Any, *, delivered: bool = False) -> None:
        right(state, report)
        if delivered:
            right(state, report, delivered=True)

    RunState.keep_report = keep_report


MUTANTS = {
    "the manifest before the files": Mutant(manifest_before_files, "lake/"),
    "the superseded run removed first": Mutant(superseded_run_removed_first, "lines/"),
    "files before the prepared manifest": Mutant(files_before_prepared_manifest, "lake/"),
    "a commit noted before it happens": Mutant(commit_noted_before_it_happens, "lines"),
    "answers forgotten": Mutant(answers_forgotten, "before append"),
    "the times of the first attempt forgotten": Mutant(times_of_first_attempt_forgotten, "append"),
    "reported before it is cleared": Mutant(reported_before_it_is_cleared, "execute"),
}
