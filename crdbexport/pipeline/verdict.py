"""What a run amounts to: its status, its exit code, and one line that says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from crdbexport.errors import (
    ConfigError,
    CrdbExportError,
    OutputClosedError,
    SinkError,
    SinkRefusedError,
    SnapshotKeptError,
    StoppedError,
    StrictRefusalError,
    shown,
)
from crdbexport.pipeline.lane import Lane, described
from crdbexport.records import Gap
from crdbexport.report import RunReport, Shrink, SinkReport, Status

COMPLETE, INCOMPLETE = 0, 3
# Where every sink says so, repeating the command changes nothing.
FINAL = frozenset({ConfigError.exit_code, SinkRefusedError.exit_code, OutputClosedError.exit_code})
# A table dropped between its listing and its details is normal, not a fault of the run.
ALWAYS_ALLOWED = "not_found"


@dataclass(frozen=True)
class Verdict:
    status: Status
    exit_code: int
    error: str | None = None


def unallowed(gaps: Collection[Gap], allowed: Collection[str]) -> list[Gap]:
    """The gaps that make a run incomplete."""
    return [gap for gap in gaps if gap.reason != ALWAYS_ALLOWED and gap.reason not in allowed]


def nothing_is_owed(report: RunReport) -> bool:
    """Whether every sink has everything, so that nothing of the run need be kept for it."""
    counts = [each for sink in report.sinks for each in sink.streams.values()]
    return all(sink.status == "committed" for sink in report.sinks) and not any(each.dead_lettered for each in counts)


def verdict(
    error: BaseException | None,
    lanes: Sequence[Lane],
    gaps: Collection[Gap],
    allowed: Collection[str],
    earlier: Sequence[SinkReport] = (),
    shrunk: Sequence[Shrink] = (),
) -> Verdict:
    """The run's end, from what stopped it, what became of its sinks, and what could not be read.

    `earlier` are sinks of an earlier attempt at the same run: those that it has committed, and those that it owes.
    `shrunk` are streams that shrank and were not allowed to.
    """
    lacking = [lane for lane in lanes if lane.status != "committed"]
    if error is not None and (lacking or not lanes):
        return _stopped(error)
    if lacking and len(lacking) == len(lanes) and not any(sink.status == "committed" for sink in earlier):
        return Verdict(*_all_lacking(lacking), _joined(_told(lacking), _shrunk_told(shrunk)))
    reasons = Counter(gap.reason for gap in unallowed(gaps, allowed))
    letters = sum(lane.dead_letters.counts.total() for lane in lanes)
    letters += sum(counts.dead_lettered for sink in earlier for counts in sink.streams.values())
    owed = [sink.name for sink in earlier if sink.status != "committed"]
    problems = _joined(
        _told(lacking),
        f"sink {', '.join(owed)} still lacks the run" if owed else "",
        f"{letters} records refused, kept as dead letters" if letters else "",
        _gaps_told(reasons),
        _shrunk_told(shrunk),
    )
    if problems:
        return Verdict("incomplete", INCOMPLETE, problems)
    return Verdict("complete", COMPLETE)


def _stopped(error: BaseException) -> Verdict:
    exit_code = error.exit_code if isinstance(error, CrdbExportError) else CrdbExportError.exit_code
    return Verdict("interrupted" if isinstance(error, StoppedError) else "failed", exit_code, described(error))


def _all_lacking(lanes: Sequence[Lane]) -> tuple[Status, int]:
    errors = [lane.error for lane in lanes]
    if all(isinstance(error, SnapshotKeptError) for error in errors):
        return "incomplete", INCOMPLETE
    if any(isinstance(error, StrictRefusalError) for error in errors):
        return "failed", StrictRefusalError.exit_code
    codes = {error.exit_code if isinstance(error, CrdbExportError) else SinkError.exit_code for error in errors}
    agreed = codes.pop() if len(codes) == 1 else SinkError.exit_code
    return "failed", agreed if agreed in FINAL else SinkError.exit_code


def _gaps_told(reasons: Counter[str]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"{reasons.total()} gaps that are not allowed ({counts})" if reasons else ""


def _shrunk_told(shrunk: Sequence[Shrink]) -> str:
    if not shrunk:
        return ""
    streams = ", ".join(f"{each.stream} shrank from {each.before:,} to {each.now:,} records" for each in shrunk)
    runs = ", ".join(dict.fromkeys(shown(each.since_run_id) for each in shrunk))
    what_now = "did the account lose privileges? If this is to be expected, add --allow-shrink to the next run"
    return f"{streams} since run {runs}: {what_now}"


def _joined(*problems: str) -> str:
    return "; ".join(filter(None, problems))


def _told(lanes: Sequence[Lane]) -> str:
    return "; ".join(f"sink {lane.sink.name} {lane.status}: {described(lane.error)}" for lane in lanes if lane.error)
