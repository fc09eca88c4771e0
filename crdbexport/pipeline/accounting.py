"""The sums of a run: every record is delivered, filtered, dead-lettered or undelivered, at every sink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from crdbexport.pipeline.lane import Lane, described
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spending import Spent
from crdbexport.pipeline.transforming import TransformChain
from crdbexport.plugin_info import PluginInfo
from crdbexport.report import DeliveryCounts, PluginReport, SinkReport, SinkStatus, StreamCounts


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


def plugin_reports(
    lanes: Iterable[Lane], chain: TransformChain, observers: Observers, infos: Iterable[PluginInfo]
) -> tuple[PluginReport, ...]:
    """What every plugin that took part in this attempt has spent: sinks, transforms, then observers."""
    by_label = {info.label: info for info in infos}
    return (
        *(_spent("sink", each.sink.name, by_label.get(each.sink.plugin), each.spent) for each in lanes),
        *(_spent("transform", each.name, by_label.get(each.plugin), each.spent) for each in chain.transforms),
        *(_spent("observer", info.name, info, spent) for info, spent in observers.spent.values()),
    )


def _spent(
    kind: Literal["sink", "transform", "observer"], name: str, info: PluginInfo | None, spent: Spent
) -> PluginReport:
    distribution, version = (info.distribution, info.version) if info else ("", "")
    return PluginReport(kind, name, distribution, version, round(spent.so_far, 3), spent.batches, spent.errors)


def _delivery(lane: Lane, stream: str, counts: StreamCounts, committed: bool) -> DeliveryCounts:
    delivered = lane.accepted[stream] if committed else 0
    dead = lane.dead_letters.counts[stream]
    return DeliveryCounts(delivered, dead, counts.extracted - counts.filtered - delivered - dead)
