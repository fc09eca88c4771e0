"""One attempt at a run: read what is not read yet, deliver what is not delivered yet, and account for all of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from crdbexport.concluding import NOTHING_READ, Conclusion
from crdbexport.config import ExportConfig
from crdbexport.errors import CrdbExportError, StorageError
from crdbexport.pipeline.accounting import plugin_reports, sink_report
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.delivery import Delivery
from crdbexport.pipeline.earlier import committed_earlier, owed, refuse_undeliverable
from crdbexport.pipeline.intake import Intake
from crdbexport.pipeline.lane import Lane, LaneSink
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.shrinking import Baseline
from crdbexport.pipeline.spool import MEBIBYTE, Spool
from crdbexport.pipeline.state import Extraction, RunRecord, RunState
from crdbexport.pipeline.transforming import TransformChain
from crdbexport.pipeline.verdict import nothing_is_owed, verdict
from crdbexport.plugin_manager import Plugins
from crdbexport.reading import Reading
from crdbexport.records import schemas
from crdbexport.redaction import Redaction
from crdbexport.report import RunReport, versions
from crdbexport.sinks.base import Run
from crdbexport.supervision import Stop, Supervision, Watcher

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What an attempt works with; `record` is the run as its first attempt fixed it."""

    config: ExportConfig
    record: RunRecord
    state: RunState
    sinks: Sequence[LaneSink]
    chain: TransformChain
    plugins: Plugins
    clock: Callable[[], datetime]
    redaction: Redaction


class Attempt:
    """A run whose state this process holds; an earlier attempt may have read, or delivered, some of it."""

    def __init__(self, parts: Prepared, observers: Observers) -> None:
        self._config, self._record, self._state = parts.config, parts.record, parts.state
        self._parts, self._observers = parts, observers
        self._conclusion = Conclusion(parts.config, parts.chain)
        self._started_at = parts.clock()
        self._known = self._state.report()
        self._extraction = self._state.extraction()
        self._baseline = Baseline(self._state.root, self._record.cluster, self._record.settings)
        self._sealing = threading.Lock()
        self._earlier = committed_earlier(self._state.committed(), parts.sinks)
        self._owed = owed(self._known, self._extraction, self._earlier, parts.sinks)
        self._sinks = [each for each in parts.sinks if each.name not in self._earlier]
        if self._extraction is None:
            refuse_undeliverable(self._record.run_id, self._earlier, self._sinks)
        self._run = self._described()
        self._spool = self._opened_spool()
        self._delivery = Delivery([self._lane(each) for each in self._sinks])
        self._intake = self._prepared_intake()
        self._reading = None if self._extraction else self._prepared_reading()
        self._outcome = self._conclusion.outcome(self._extraction) if self._extraction else NOTHING_READ

    def run(self, stop: Stop, watch: Watcher) -> RunReport:
        """Do what is left to do. Raises what keeps the run from beginning; what comes later is in the report."""
        if self._known is not None and not self._sinks and self._is_told(self._known):
            log.warning(
                "run %s is committed since %s; nothing was done",
                self._known.run_id,
                self._known.finished_at.isoformat(timespec="seconds"),
                extra={"event": "run_known"},
            )
            if self._extraction is None:
                self._state.drop_spool()  # The attempt that kept the report may have died before it could.
            return self._known
        self._delivery.preflight(lambda: stop.error)
        self._tell_begin()
        self._delivery.begin(lambda: self._outcome, strict=self._config.strict, on_commit=self._note_commit)
        if self._reading is not None:
            self._reading.start()
        Supervision(self._reading, self._delivery, self._spool).until_over(stop, watch)
        report = self._account(stop)
        self._keep(report)
        self._tell_end(report)
        return report

    def _is_told(self, report: RunReport) -> bool:
        """Whether the report knows of every commit: the attempt after it may have died before it could report."""
        return self._extraction is None or all(sink in report.sinks for sink in self._earlier.values())

    def _tell_begin(self) -> None:
        record = self._record
        goes_on = "goes on" if self._state.begun_to_read() else "begins"
        begun = {"event": "run_started", "run_id": record.run_id, "cluster": record.cluster}
        log.info("run %s %s; its state is in %s", record.run_id, goes_on, self._state.directory, extra=begun)
        self._observers.tell("crdbexport_run_started", run=self._run)

    def _tell_end(self, report: RunReport) -> None:
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
        self._observers.tell("crdbexport_run_finished", report=self._conclusion.published(report))

    def _described(self) -> Run:
        record = self._record
        extracted_at = self._extraction.extracted_at if self._extraction else record.started_at
        return Run(record.cluster, record.run_id, record.logical_time, extracted_at, "", schemas(self._config.streams))

    def _opened_spool(self) -> Spool:
        if self._extraction is not None:
            return Spool(self._state.spool_directory, self._extraction.batches)
        self._state.drop_spool()
        return Spool(self._state.spool_directory, limit_bytes=self._config.spool_limit * MEBIBYTE)

    def _lane(self, sink: LaneSink) -> Lane:
        letters = DeadLetters(self._state.dead_letters(sink.name), sink.name, self._parts.redaction)
        run = replace(self._run, sink_name=sink.name)
        return Lane(sink, run, self._spool, letters, self._observers, strict=self._config.strict)

    def _prepared_intake(self) -> Intake:
        run = self._run
        envelope = Envelope(run.cluster, run.run_id, run.logical_time, run.extracted_at)
        return Intake(Batcher(envelope), self._parts.chain, self._spool, self._config.streams)

    def _prepared_reading(self) -> Reading:
        requests, redaction = self._state.requests(), self._parts.redaction
        return Reading(self._config, self._intake, self._seal, self._state.answers, requests, redaction)

    def _seal(self, reading: Reading) -> None:
        """The whole cluster is read: let that survive a power cut, then let the lanes commit."""
        self._spool.sync()
        facts = self._read_so_far(reading)
        sinks = tuple(sink_report(lane, facts.streams).redacted(self._parts.redaction) for lane in self._delivery.lanes)
        facts = msgspec.structs.replace(facts, shrunk=self._baseline.shrunken(facts.streams), sinks=sinks)
        self._outcome = self._conclusion.outcome(facts)
        with self._sealing:
            self._spool.check()
            self._state.keep_extraction(facts)
            self._extraction = facts
        self._spool.seal()
        spooled = {"event": "spooled", "batches": len(facts.batches), "bytes": self._spool.size_bytes}
        log.info("the cluster is read: %(batches)d batches, %(bytes)d bytes spooled", spooled, extra=spooled)

    def _note_commit(self, lane: Lane) -> None:
        """Remember at once that the sink has the run, so that whatever happens now it is not fed again."""
        try:
            lane.dead_letters.sync()
            report = sink_report(lane, self._facts().streams, "committed")
            self._state.keep_committed(report.redacted(self._parts.redaction))
        except CrdbExportError as error:
            log.warning("sink %s has committed, which is not kept: %s", lane.sink.name, error)

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
        shrunk = self._conclusion.unallowed_shrinks(facts)
        decided = verdict(error, lanes, facts.gaps, self._config.allow_gaps, earlier, shrunk)
        if error is not None:
            log.debug("what ended the run", exc_info=error)
        report = RunReport(
            run_id=self._record.run_id,
            cluster=self._record.cluster,
            logical_time=self._record.logical_time,
            dialect=facts.dialect,
            status=decided.status,
            exit_code=decided.exit_code,
            error=decided.error,
            started_at=self._started_at,
            finished_at=self._parts.clock(),
            streams=facts.streams,
            requests=facts.requests,
            objects=facts.objects,
            gaps=facts.gaps,
            shrunk=facts.shrunk,
            sinks=(*earlier, *(sink_report(lane, facts.streams) for lane in lanes)),
            plugins=plugin_reports(lanes, self._parts.chain, self._observers, self._parts.plugins.infos),
            versions=versions({info.distribution: info.version for info in self._parts.plugins.infos if info.hooks}),
        )
        return report.redacted(self._parts.redaction)

    def _keep(self, report: RunReport) -> None:
        """Keep the account, and what was read as long as a sink still lacks it, or refused some of it."""
        try:
            self._keep_reading()
            if self._extraction is not None:
                self._measure_later_runs_by(self._extraction, report)
            delivered = nothing_is_owed(report) and not self._config.keep_spool
            self._state.keep_report(report, delivered=delivered)
        except StorageError as error:
            log.warning("the account of the run is not kept: %s", error, extra={"event": "report_not_kept"})

    def _keep_reading(self) -> None:
        """Of a reading that was cut short keep what it cost; a thread that outlives the run must not seal it later."""
        with self._sealing:
            if self._extraction is None and self._reading is not None:
                # What was spooled is built anew out of the answers; on a full disk it leaves no room for the account.
                self._state.drop_spool()
                self._state.keep_requests(self._reading.requests)

    def _measure_later_runs_by(self, extraction: Extraction, report: RunReport) -> None:
        committed = any(each.status == "committed" for each in report.sinks)
        if committed and not self._conclusion.unallowed_shrinks(extraction):
            self._baseline.accept(self._record, extraction, report.finished_at)
