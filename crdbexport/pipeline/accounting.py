"""The sums of a run: every record is delivered, filtered, dead-lettered or undelivered, at every sink."""

from __future__ import annotations

from collections.abc import Mapping

from crdbexport.pipeline.lane import Lane, described
from crdbexport.report import DeliveryCounts, SinkReport, SinkStatus, StreamCounts


def sink_report(lane: Lane, streams: Mapping[str, StreamCounts], status: SinkStatus | None = None) -> SinkReport:
    """The account of one lane; records count as delivered only once their sink has committed."""
    status = status or lane.status or "aborted"
    committed = status == "committed"
    return SinkReport(
        name=lane.sink.name,
        type=lane.sink.type,
        target=lane.sink.target,
        status=status,
        streams={name: _delivery(lane, name, counts, committed) for name, counts in streams.items()},
        bytes=lane.receipt.size_bytes if committed else 0,
        artifacts=lane.receipt.artifacts if committed else (),
        error=described(lane.error) if lane.error else None,
    )


def _delivery(lane: Lane, stream: str, counts: StreamCounts, committed: bool) -> DeliveryCounts:
    delivered = lane.accepted[stream] if committed else 0
    dead = lane.dead_letters.counts[stream]
    return DeliveryCounts(delivered, dead, counts.extracted - counts.filtered - delivered - dead)
