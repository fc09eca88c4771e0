"""Attempts at runs of one living cluster, each of which is judged by what it reports and by what stands afterwards."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import crdbexport
from crdbexport import ConfigError, ExportConfig, RunReport
from crdbexport.file_names import file_stem
from crdbexport.pipeline.journal import Journal
from crdbexport.pipeline.runs import litter
from crdbexport.redelivery import redeliver
from crdbexport.report import SinkReport
from crdbexport.sinks.manifest import Manifest
from tests.conftest import assert_adds_up
from tests.proof import doomed
from tests.proof.doomed import NOW, Job
from tests.proof.expecting import Expectation
from tests.proof.forks import ForkServer
from tests.proof.living import Answers, LivingCluster
from tests.proof.reading_lakes import gaps_of, records_of, shown, tidy, torn
from tests.sinks.lake_support import all_files

SINKS = ("lake", "lines")
ALWAYS_ALLOWED = "not_found"
TOLERATED = ("forbidden", "ambiguous")


@dataclass(frozen=True)
class Command:
    """What is given on the command line."""

    day: str
    name: str
    sinks: tuple[str, ...] = SINKS
    tolerant: bool = False
    allow_shrink: bool = False

    @property
    def run_id(self) -> str:
        return f"{self.day[-2:]}-{self.name}"

    def accepts(self, report: RunReport) -> bool:
        """Whether what could not be read leaves the run complete."""
        allowed = {ALWAYS_ALLOWED, *(TOLERATED if self.tolerant else ())}
        return {gap.reason for gap in report.gaps} <= allowed and (self.allow_shrink or not report.shrunk)


@dataclass
class Run:
    """What the cluster told a run, whether some sink lacks it, and whether it has been killed and not ended since."""

    command: Command
    """The first that was given."""
    answers: Answers = field(default_factory=dict)
    is_owed: bool = False
    was_killed: bool = False


class Attempts:
    """All attempts in one place: one state directory, two lakes. An hour passes between any two."""

    def __init__(self, place: Path, cluster: LivingCluster, url: str, forks: ForkServer, done: Counter[str]) -> None:
        self.place, self.cluster = place, cluster
        self._url, self._forks, self._done = url, forks, done
        self._hours = 0
        self.runs: dict[str, Run] = {}
        self._standing: dict[str, dict[str, Manifest]] = {name: {} for name in SINKS}
        self._untidy: set[str] = set()
        """Lakes in which a killed run may have left something, since no other has published there."""

    def export(self, command: Command, **befalls: Any) -> RunReport | None:
        """The report of an attempt; None where the run is delivered, and keeps nothing for another sink."""
        had, trouble = self._begun(command)
        for name, value in befalls.items():
            setattr(trouble, name, value)
        try:
            report = crdbexport.export(self._config(command), clock=self._clock, stop=trouble.stop)
        except ConfigError as error:
            assert "no longer kept" in str(error)
            assert had - set(command.sinks) or set(command.sinks) - had
            self._done["refused"] += 1
            return None
        self._done[f"exit {report.exit_code}"] += 1
        self._judge(command, report, had)
        self._look()
        return report

    def export_again(self, command: Command, first: RunReport) -> None:
        """The same command, after one that left nothing to do."""
        before = self._published()
        assert self.export(command) == first
        assert self._published() == before
        assert self.cluster.trouble.asked == 0

    def killed(self, command: Command, after: int) -> None:
        """An attempt by a process that is killed after so many operations, or comes to its end before."""
        self._begun(command)
        job = Job(place=str(self.place), url=self._url, run_id=command.run_id, hours=self._hours, die_after=after)
        ended = self._forks.attempt(job)
        if ended.killed:
            self._done["killed"] += 1
            self.runs[command.run_id].was_killed = True
            self._untidy |= set(SINKS)
        else:
            self._done[f"exit {ended.code}"] += 1
            assert ended.code in (0, 2, 3), (self.place / "said").read_text()
        self._look()

    def deliver(self, command: Command) -> None:
        """Deliver what a run keeps; the cluster is asked nothing."""
        had, trouble = self._begun(command)
        try:
            report = redeliver(self._config(command), command.run_id, clock=self._clock)
        except ConfigError:
            self._done["nothing to deliver"] += 1
        else:
            self._done["delivered"] += 1
            self._judge(command, report, had)
        assert trouble.asked == 0
        self._look()

    def _begun(self, command: Command) -> tuple[set[str], Any]:
        """The sinks that have the run already, and what may befall the cluster now."""
        self._hours += 1
        run = self.runs.setdefault(command.run_id, Run(command))
        return had(self.place / "state/runs" / file_stem("c1", command.run_id)), self.cluster.begin(run.answers)

    def _clock(self) -> datetime:
        return NOW + timedelta(hours=self._hours)

    def _config(self, command: Command) -> ExportConfig:
        known: dict[str, Any] = doomed.settings(self.place, self._url, command.run_id)
        changed = {
            "logical_time": command.day,
            "sinks": {name: known["sinks"][name] for name in command.sinks},
            "allow_gaps": TOLERATED if command.tolerant else (),
            "allow_shrink": command.allow_shrink,
        }
        return ExportConfig(**{**known, **changed})

    def _judge(self, command: Command, report: RunReport, had: set[str]) -> None:
        """Whether the report holds together, and what was committed stands."""
        assert_adds_up(report)
        committed = {sink.name for sink in report.sinks if sink.status == "committed"}
        run = self.runs[command.run_id]
        run.was_killed, run.is_owed = False, len(committed) < len(report.sinks)
        if report.finished_at == self._clock():  # Else it is what an earlier attempt came to.
            assert committed >= had
            whole = len(committed) == len(report.sinks) and command.accepts(report)
            assert (report.exit_code == 0) == (report.status == "complete") == whole
        if report.exit_code in (4, 5):
            assert not committed
        for name in committed - had:
            self._untidy.discard(name)
            manifest = self._shown(name)[command.day]
            assert (manifest.run_id, manifest.complete) == (command.run_id, command.accepts(report))
            assert manifest.rows == {stream: told.extracted for stream, told in report.streams.items()}

    def _look(self) -> None:
        """What holds after every attempt, whatever became of it."""
        for name in SINKS:
            lake = self.place / name
            now, before = self._shown(name), self._standing[name]
            for day, manifest in now.items():
                if manifest != before.get(day):
                    self._read(lake, manifest, before.get(day))
            assert now.keys() >= before.keys(), "a snapshot is gone"
            assert name in self._untidy or tidy(lake)
            assert list(torn(lake)) == []
            self._standing[name] = now
        killed = {file_stem("c1", run_id) for run_id, run in self.runs.items() if run.was_killed}
        assert all(killed & set(path.parts) for path in litter(self.place / "state"))

    def _read(self, lake: Path, manifest: Manifest, before: Manifest | None) -> None:
        """Read a run that has appeared, and compare it with what the cluster told it."""
        self._done["snapshots read"] += 1
        gaps = gaps_of(manifest)
        expected = Expectation(self.runs[manifest.run_id].answers, gaps)
        assert records_of(lake, manifest) == expected.records
        assert gaps == expected.gaps
        if before is not None:
            assert manifest.complete >= before.complete, "an incomplete run has replaced a complete one"
            assert manifest.complete > before.complete or manifest.extracted_at >= before.extracted_at

    def _shown(self, sink: str) -> dict[str, Manifest]:
        return shown(self.place / sink, unfinished=sink in self._untidy)

    def _published(self) -> dict[str, str]:
        files = {f"{name}/{path}": digest for name in SINKS for path, digest in all_files(self.place / name).items()}
        return {path: digest for path, digest in files.items() if "/_staging/" not in path}


def had(run: Path) -> set[str]:
    """The sinks that have the run, as its journal tells."""
    if not (run / "journal.db").exists():
        return set()
    with closing(Journal(run / "journal.db")) as journal:
        return set(journal.sinks(SinkReport))
