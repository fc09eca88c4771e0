"""One attempt at a run: read what is not read yet, deliver what is not delivered yet, and account for all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from crdbexport.config import ExportConfig
from crdbexport.errors import ConfigError, StorageError, shown
from crdbexport.pipeline.accounting import sink_report
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.delivery import Delivery
from crdbexport.pipeline.intake import Intake
from crdbexport.pipeline.lane import Lane, LaneSink
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.shrinking import Baseline
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.state import Extraction, RunRecord, RunState
from crdbexport.pipeline.transforming import TransformChain
from crdbexport.pipeline.verdict import unallowed, verdict
from crdbexport.plugin_manager import Plugins
from crdbexport.reading import Reading
from crdbexport.records import Gap, schemas
from crdbexport.report import RunReport, Shrink, SinkReport, versions
from crdbexport.selection import Coverage, Selection, coverage_of
from crdbexport.sinks.base import Outcome, Run
from crdbexport.supervision import Stop, Supervision, Watcher

NOTHING_READ = Outcome(complete=False, gaps=(), coverage={}, rows={})

log = logging.getLogger(__name__)


class Attempt:
    """A run whose state this process holds; an earlier attempt may have read, or delivered, some of it."""

    def __init__(
        self,
        config: ExportConfig,
        record: RunRecord,
        state: RunState,
        sinks: Sequence[LaneSink],
        chain: TransformChain,
        plugins: Plugins,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._record, self._state, self._clock = config, record, state, clock
        self._plugins, self._chain = plugins, chain
        self._started_at = clock()
        self._known = state.report()
        self._extraction = state.extraction()
        self._baseline = Baseline(state.root, record.cluster, record.settings)
        self._earlier = _committed(self._known, sinks)
        self._owed = _owed(self._known, sinks)
        self._sinks = [each for each in sinks if each.name not in self._earlier]
        self._refuse_undeliverable()
        self._run = self._described()
        self._spool = self._opened_spool()
        self._observers = Observers(plugins)
        self._delivery = Delivery([self._lane(each) for each in self._sinks])
        self._intake = self._prepared_intake()
        self._reading = None if self._extraction else Reading(config, self._intake, self._seal)
        self._outcome = self._concluded(self._extraction) if self._extraction else NOTHING_READ

    def run(self, stop: Stop, watch: Watcher) -> RunReport:
        """Do what is left to do. Raises what keeps the run from beginning; what comes later is in the report."""
        if self._known is not None and not self._sinks:
            log.warning(
                "run %s is committed since %s; nothing was done",
                self._known.run_id,
                self._known.finished_at.isoformat(timespec="seconds"),
                extra={"event": "run_known"},
            )
            return self._known
        self._delivery.preflight(lambda: stop.error)
        record = self._record
        begun = {"event": "run_started", "run_id": record.run_id, "cluster": record.cluster}
        log.info("run %s begins", record.run_id, extra=begun)
        self._observers.tell("crdbexport_run_started", run=self._run)
        self._delivery.begin(lambda: self._outcome)
        if self._reading is not None:
            self._reading.start()
        Supervision(self._reading, self._delivery, self._spool).until_over(stop, watch)
        report = self._account(stop)
        self._keep(report)
        ended = {
            "event": "run_finished",
            "run_id": report.run_id,
            "cluster": report.cluster,
            "status": report.status,
            "exit_code": report.exit_code,
            "records": {name: counts.extracted for name, counts in report.streams.items()},
            "gaps": len(report.gaps),
        }
        log.info("run %s is %s", report.run_id, report.status, extra=ended)
        self._observers.tell("crdbexport_run_finished", report=self._published(report))
        return report

    def close(self) -> None:
        self._observers.close()
        self._state.close()

    def _refuse_undeliverable(self) -> None:
        if self._earlier and self._sinks and self._extraction is None:
            names = ", ".join(each.name for each in self._sinks)
            raise ConfigError(
                f"run {shown(self._record.run_id)} is committed and its records are no longer kept, so that {names} "
                "cannot be fed from it; give another --run-id"
            )

    def _described(self) -> Run:
        record = self._record
        extracted_at = self._extraction.extracted_at if self._extraction else self._started_at
        streams = schemas(self._config.streams)
        return Run(record.cluster, record.run_id, record.logical_time, extracted_at, "", streams)

    def _opened_spool(self) -> Spool:
        if self._extraction is None:
            self._state.drop_extraction()
            return Spool(self._state.spool_directory)
        return Spool(self._state.spool_directory, self._extraction.batches)

    def _lane(self, sink: LaneSink) -> Lane:
        letters = DeadLetters(self._state.dead_letters(sink.name), sink.name)
        return Lane(sink, replace(self._run, sink_name=sink.name), self._spool, letters, self._observers)

    def _prepared_intake(self) -> Intake:
        run = self._run
        envelope = Envelope(run.cluster, run.run_id, run.logical_time, run.extracted_at)
        return Intake(Batcher(envelope), self._chain, self._spool, self._config.streams)

    def _seal(self, reading: Reading) -> None:
        """The whole cluster is read: note it, then let the lanes commit."""
        self._spool.check()
        facts = self._read_so_far(reading)
        self._extraction = msgspec.structs.replace(facts, shrunk=self._baseline.shrunken(facts.streams))
        self._outcome = self._concluded(self._extraction)
        self._state.keep_extraction(self._extraction)
        self._spool.seal()

    def _read_so_far(self, reading: Reading) -> Extraction:
        return Extraction(
            extracted_at=self._run.extracted_at,
            dialect=reading.dialect_name,
            streams=self._intake.counts,
            requests=reading.requests,
            objects=reading.objects(),
            gaps=tuple(reading.gaps),
            batches=self._spool.batches,
        )

    def _facts(self) -> Extraction:
        if self._extraction is not None:
            return self._extraction
        assert self._reading is not None  # noqa: S101 (either it was read, or it is being read)
        return self._read_so_far(self._reading)

    def _concluded(self, facts: Extraction) -> Outcome:
        gaps, shrunk = self._renamed(facts.gaps), self._unallowed_shrinks(facts)
        return Outcome(
            complete=not shrunk and not unallowed(facts.gaps, self._config.allow_gaps),
            gaps=gaps,
            coverage={name: self._coverage(name, gaps, known=not shrunk) for name in self._config.streams},
            rows={name: counts.extracted - counts.filtered for name, counts in facts.streams.items()},
        )

    def _coverage(self, stream: str, gaps: Iterable[Gap], *, known: bool) -> Coverage:
        selection = Selection(self._config.database, self._config.exclude_database)
        rename = self._chain.rename if self._chain.renames else None
        # Privileges that one stream shows to be lost hide rows of the others as well, if fewer.
        return coverage_of(stream, selection, gaps, rename) if known else Coverage(selection, known=False)

    def _unallowed_shrinks(self, facts: Extraction) -> tuple[Shrink, ...]:
        return () if self._config.allow_shrink else facts.shrunk

    def _renamed(self, gaps: Iterable[Gap]) -> tuple[Gap, ...]:
        return tuple(self._chain.rename_gap(gap) for gap in gaps)

    def _published(self, report: RunReport) -> RunReport:
        """The report as strangers may see it: its own gaps tell the operator real names, a transform may hide them."""
        return msgspec.structs.replace(report, gaps=self._renamed(report.gaps))

    def _ended_by(self, stop: Stop) -> BaseException | None:
        """What ended the run before its time, if anything did."""
        if stop.error is not None:
            return stop.error
        # Where every sink has failed, that ended the reading; the sinks tell why.
        return self._reading.error if self._reading and not self._delivery.hopeless else None

    def _account(self, stop: Stop) -> RunReport:
        facts, lanes = self._facts(), self._delivery.lanes
        earlier = [*self._earlier.values(), *self._owed]
        error = self._ended_by(stop)
        shrunk = self._unallowed_shrinks(facts)
        decided = verdict(error, lanes, facts.gaps, self._config.allow_gaps, earlier, shrunk)
        if error is not None:
            log.debug("what ended the run", exc_info=error)
        return RunReport(
            run_id=self._record.run_id,
            cluster=self._record.cluster,
            logical_time=self._record.logical_time,
            dialect=facts.dialect,
            status=decided.status,
            exit_code=decided.exit_code,
            error=decided.error,
            started_at=self._started_at,
            finished_at=self._clock(),
            streams=facts.streams,
            requests=facts.requests,
            objects=facts.objects,
            gaps=facts.gaps,
            shrunk=facts.shrunk,
            sinks=(*earlier, *(sink_report(lane, facts.streams) for lane in lanes)),
            versions=versions({info.distribution: info.version for info in self._plugins.infos if info.hooks}),
        )

    def _keep(self, report: RunReport) -> None:
        """Keep the account, and what was read as long as a sink still lacks it, or refused some of it."""
        if self._extraction is None:
            # A part of a cluster is of no use, and on a full disk it leaves no room for the account.
            self._state.drop_extraction()
        elif _any_committed(report.sinks) and not self._unallowed_shrinks(self._extraction):
            self._baseline.accept(self._record, self._extraction, report.finished_at)
        try:
            self._state.keep_report(report)
        except StorageError as error:
            log.warning("the account of the run is not kept: %s", error, extra={"event": "report_not_kept"})
            return
        if not any(sink.status != "committed" or _dead_lettered(sink) for sink in report.sinks):
            self._state.drop_extraction()


def _committed(report: RunReport | None, sinks: Sequence[LaneSink]) -> dict[str, SinkReport]:
    """The sinks that an earlier attempt has committed; raises where a configured one points elsewhere now."""
    earlier = {each.name: each for each in (report.sinks if report else ()) if each.status == "committed"}
    for sink in sinks:
        then = earlier.get(sink.name)
        if then is not None and (sink.type, sink.target) != (then.type, then.target):
            raise ConfigError(
                f"sink {sink.name} has committed this run to {then.type}:{then.target} already; give the same target "
                "as then, or another --run-id"
            )
    return earlier


def _owed(report: RunReport | None, sinks: Sequence[LaneSink]) -> list[SinkReport]:
    """The sinks that lack the run since an earlier attempt and are not configured now: their debt stands."""
    configured = {each.name for each in sinks}
    earlier = report.sinks if report and _any_committed(report.sinks) else ()
    return [each for each in earlier if each.status != "committed" and each.name not in configured]


def _any_committed(sinks: Iterable[SinkReport]) -> bool:
    return any(each.status == "committed" for each in sinks)


def _dead_lettered(sink: SinkReport) -> int:
    return sum(counts.dead_lettered for counts in sink.streams.values())
