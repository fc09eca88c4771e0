"""Delivers what a run keeps, without asking the cluster: to sinks that lack it, or what a sink had refused."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.attempt import Attempt, Prepared
from crdbexport.concluding import Conclusion
from crdbexport.config import ExportConfig, parse_config, state_directory
from crdbexport.errors import ConfigError, shown
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.delivery import Delivery
from crdbexport.pipeline.lane import Lane, LaneSink, described
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.runs import KnownRun, find_run
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.state import Extraction
from crdbexport.pipeline.verdict import INCOMPLETE, nothing_is_owed, verdict
from crdbexport.records import schemas
from crdbexport.redaction import Redaction
from crdbexport.report import DeliveryCounts, RunReport
from crdbexport.runner import Named, prepared, write_report
from crdbexport.selection import Coverage, Selection
from crdbexport.sinks.base import Outcome, Run
from crdbexport.supervision import Stop, Supervision, Watcher


def redeliver(
    config: ExportConfig,
    run_id: str,
    *,
    dead_letters: bool = False,
    plugins: Sequence[tuple[str, object]] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    stop: Stop | None = None,
    watch: Watcher | None = None,
    redaction: Redaction | None = None,
    named: Named | None = None,
) -> RunReport:
    """Feed the configured sinks from the records that a run keeps; of the cluster no question is asked.

    With `dead_letters` only what these sinks had refused is written again. `config.cluster` is needed where several
    clusters have a run of this id; what the run reads is known from the run. Raises `CrdbExportError` where nothing
    can be delivered: the run is not known, not read to its end, or no longer kept.
    """
    run = find_run(state_directory(config), run_id, config.cluster or None)
    if not run.deliverable:
        raise ConfigError(_why_not(run))
    of_the_run = {"cluster": run.cluster, "run_id": run.run_id, **run.settings}
    keep = config.keep_spool or not run.owes  # Nobody lacked it: it was kept for sinks to come.
    config = parse_config({**msgspec.structs.asdict(config), **of_the_run, "keep_spool": keep})
    stop, watch = stop or Stop(), watch or (lambda progress: None)
    with (
        prepared(config, run_id, plugins, clock, redaction or Redaction(), named) as parts,
        closing(Observers(parts.plugins)) as observers,
    ):
        if dead_letters:
            report = _Letters(parts, observers).deliver(stop, watch)
        else:
            report = Attempt(parts, observers).run(stop, watch)
    write_report(config, report)
    return report


def _why_not(run: KnownRun) -> str:
    name = shown(run.run_id)
    if run.resumable or run.status in ("running", "interrupted", "failed"):
        return (
            f"run {name} is not read to its end; the same `crdbexport export` command with --run-id {run.run_id} goes "
            "on with it"
        )
    return f"run {name} is delivered and keeps no records; export with --keep-spool where more sinks are to follow"


@dataclass(frozen=True)
class _Parcel:
    """One sink's dead letters, on their way to it again; what it refuses again is in the lane's own letters."""

    lane: Lane
    spool: Spool
    letters: DeadLetters


class _Letters:
    """Writes each configured sink's dead letters to it again, one sink after another."""

    def __init__(self, parts: Prepared, observers: Observers) -> None:
        self._parts, self._state, self._observers = parts, parts.state, observers
        extraction, report = parts.state.extraction(), parts.state.report()
        if extraction is None or report is None:
            raise ConfigError(
                f"run {shown(parts.record.run_id)} has not been delivered yet, so that nothing was refused"
            )
        self._extraction: Extraction = extraction
        self._report: RunReport = report
        # What is settled is noted at once, and told in the report at the end.
        self._sinks = {each.name: each for each in report.sinks} | parts.state.committed()
        for sink in parts.sinks:
            self._refuse_stranger(sink)

    def deliver(self, stop: Stop, watch: Watcher) -> RunReport:
        try:
            parcels = [self._packed(sink) for sink in self._parts.sinks]
            delivery = Delivery([each.lane for each in parcels])
            delivery.preflight(lambda: stop.error)
            try:
                for parcel in parcels:
                    if stop.error is None:
                        self._deliver(parcel, stop, watch)
            finally:
                delivery.dismiss()
        finally:
            shutil.rmtree(self._state.refused_directory, ignore_errors=True)
        report = self._account(delivery.lanes)
        if stop.error is not None:
            raise stop.error
        return report

    def _refuse_stranger(self, sink: LaneSink) -> None:
        known = self._sinks.get(sink.name)
        if known is None or (known.type, known.target) != (sink.type, sink.target):
            raise ConfigError(
                f"sink {sink.name} ({sink.type}:{sink.target}) has no part in run {shown(self._report.run_id)}; give "
                "the sink as it was given then"
            )
        if known.status != "committed" or not self._state.dead_letters(sink.name).exists():
            raise ConfigError(f"sink {sink.name} has no dead letters of run {shown(self._report.run_id)}")

    def _packed(self, sink: LaneSink) -> _Parcel:
        redact = self._parts.redaction
        letters = DeadLetters(self._state.dead_letters(sink.name), sink.name, redact)
        again = DeadLetters(letters.path.with_suffix(".again"), sink.name, redact)
        spool = self._refused(letters)
        return _Parcel(Lane(sink, self._run(sink), spool, again, self._observers), spool, letters)

    def _run(self, sink: LaneSink) -> Run:
        record = self._parts.record
        return Run(
            record.cluster,
            record.run_id,
            record.logical_time,
            self._extraction.extracted_at,
            sink.name,
            schemas(self._parts.config.streams),
            redelivery=True,
        )

    def _refused(self, letters: DeadLetters) -> Spool:
        """A spool of the refused records alone."""
        directory = self._state.refused_directory / letters.path.stem
        shutil.rmtree(directory, ignore_errors=True)  # A process may have died over it.
        ids = pa.array(letters.record_ids(), type=pa.string())
        refused = Spool(directory)
        for batch in Spool(self._state.spool_directory, self._extraction.batches).read():
            data = batch.data.filter(pc.is_in(batch.data.column("record_id"), value_set=ids))
            if data.num_rows:
                refused.append(batch.stream, data)
        refused.seal()
        return refused

    def _deliver(self, parcel: _Parcel, stop: Stop, watch: Watcher) -> None:
        delivery, outcome = Delivery([parcel.lane]), self._outcome(parcel.spool)
        delivery.begin(lambda: outcome)
        Supervision(None, delivery, parcel.spool).until_over(stop, watch)
        if parcel.lane.status == "committed":
            self._settle(parcel)
        elif not parcel.lane.hung:
            parcel.lane.dead_letters.forget()

    def _outcome(self, spool: Spool) -> Outcome:
        rows: Counter[str] = Counter()
        for batch in spool.batches:
            rows[batch.stream] += batch.rows
        # "Not seen" says nothing here: nearly everything is left out.
        unknown = dict.fromkeys(self._parts.config.streams, Coverage(Selection(), known=False))
        outcome = Conclusion(self._parts.config, self._parts.chain).outcome(self._extraction)
        return replace(outcome, coverage=unknown, rows=rows)

    def _settle(self, parcel: _Parcel) -> None:
        """The sink has what it took; what it refused again stays.

        A process may die between the two steps: the letters are then delivered once more, and the sums come out right
        all the same, for they do not depend on how many letters there were.
        """
        known, again = self._sinks[parcel.lane.sink.name], parcel.lane.dead_letters
        streams = {
            name: DeliveryCounts(
                counts.delivered + counts.dead_lettered - again.counts[name], again.counts[name], counts.undelivered
            )
            for name, counts in known.streams.items()
        }
        self._sinks[known.name] = msgspec.structs.replace(known, streams=streams)
        self._state.keep_committed(self._sinks[known.name])
        parcel.letters.become(again)

    def _account(self, lanes: Sequence[Lane]) -> RunReport:
        config, facts = self._parts.config, self._extraction
        shrunk = Conclusion(config, self._parts.chain).unallowed_shrinks(facts)
        sinks = tuple(self._sinks.values())
        decided = verdict(None, (), facts.gaps, config.allow_gaps, sinks, shrunk)
        failures = [
            f"sink {lane.sink.name} {lane.status}: {described(lane.error)}"
            for lane in lanes
            if lane.status != "committed" and lane.error is not None
        ]
        error = "; ".join(filter(None, (*failures, decided.error)))
        report = msgspec.structs.replace(
            self._report,
            sinks=sinks,
            status="incomplete" if failures else decided.status,
            exit_code=INCOMPLETE if failures else decided.exit_code,
            error=self._parts.redaction(error) or None,
            finished_at=self._parts.clock(),
        )
        self._state.keep_report(report, delivered=not config.keep_spool and nothing_is_owed(report))
        return report
