"""What earlier attempts at a run did for its sinks, and what they left undone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from crdbexport.errors import ConfigError, shown
from crdbexport.pipeline.lane import LaneSink
from crdbexport.pipeline.state import Extraction
from crdbexport.report import RunReport, SinkReport


def committed_earlier(earlier: dict[str, SinkReport], sinks: Sequence[LaneSink]) -> dict[str, SinkReport]:
    """The sinks that an earlier attempt has committed; raises where a configured one points elsewhere now."""
    for sink in sinks:
        then = earlier.get(sink.name)
        if then is not None and (sink.type, sink.target) != (then.type, then.target):
            raise ConfigError(
                f"sink {sink.name} has committed this run to {then.type}:{then.target} already; give the same target "
                "as then, or another --run-id"
            )
    return earlier


def refuse_undeliverable(run_id: str, committed: Collection[str], lacking: Sequence[LaneSink]) -> None:
    """Of a run whose records are no longer kept: refuse sinks that come after those that have it."""
    if committed and lacking:
        names = ", ".join(each.name for each in lacking)
        raise ConfigError(
            f"run {shown(run_id)} is committed and its records are no longer kept, so that {names} cannot be fed from "
            "it; give another --run-id"
        )


def owed(
    report: RunReport | None,
    extraction: Extraction | None,
    committed: Collection[str],
    sinks: Sequence[LaneSink],
) -> list[SinkReport]:
    """The sinks that lack the run since an earlier attempt and are not configured now: their debt stands.

    As long as no sink has the run, nothing is owed to any.
    """
    if not committed:
        return []
    # An attempt that was killed left no report.
    known = {sink.name: sink for sink in (extraction.sinks if extraction else ())}
    known |= {sink.name: sink for sink in (report.sinks if report else ())}
    configured = {each.name for each in sinks}
    return [sink for name, sink in known.items() if name not in configured and name not in committed]
