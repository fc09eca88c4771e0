"""All lanes of a run together: checked, begun, watched, and brought to an end that always comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from crdbexport.errors import CrdbExportError, PluginError, PreflightError, SinkError, StrictRefusalError
from crdbexport.pipeline.lane import Lane, LaneCutOffError, described
from crdbexport.sinks.base import Outcome

POLL_SECONDS = 0.05
DISMISS_SECONDS = 5.0


class Delivery:
    """The lanes of a run, driven from the thread that supervises it."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = tuple(lanes)

    @property
    def finished(self) -> bool:
        return all(lane.ended.is_set() for lane in self.lanes)

    @property
    def hopeless(self) -> bool:
        """Whether every lane has failed, so that nothing more need be read."""
        return bool(self.lanes) and all(lane.status == "failed" for lane in self.lanes)

    @property
    def refusal(self) -> StrictRefusalError | None:
        """What forbids every sink to commit, in a strict run."""
        for lane in self.lanes:
            if lane.status == "failed" and isinstance(lane.error, StrictRefusalError):
                return StrictRefusalError(f"sink {lane.sink.name} {lane.error}")
        return None

    @property
    def hung(self) -> bool:
        """Whether a sink still has its thread, which would keep this one waiting for ever."""
        return any(lane.hung for lane in self.lanes)

    def preflight(self, stopped: Callable[[], BaseException | None] = lambda: None) -> None:
        """Ask every sink whether it can work at all; raises the first refusal, or what `stopped` answers."""
        for lane in self.lanes:
            lane.check()
        try:
            for lane in self.lanes:
                while not lane.checked.wait(POLL_SECONDS) and not lane.ended.is_set():
                    self.watch()
                    if error := stopped():
                        raise error
                if lane.error is not None:
                    raise _refusal(lane)
        except BaseException:
            self.dismiss()
            raise

    def dismiss(self) -> None:
        """End lanes that were checked and shall not begin, once they have cleaned up."""
        for lane in self.lanes:
            lane.dismiss()
        self.wind_up(DISMISS_SECONDS, SinkError("the run did not begin"))

    def begin(
        self,
        outcome: Callable[[], Outcome],
        *,
        strict: bool = False,
        on_commit: Callable[[Lane], None] = lambda _: None,
    ) -> None:
        """Let batches flow. In a strict run no sink commits before every one has taken everything, or has failed."""
        for lane in self.lanes:
            lane.begin(outcome, self._all_taken if strict else lambda: True, on_commit)

    def _all_taken(self) -> bool:
        # In this order: a lane that refuses has its error before it ends.
        return all(lane.written or lane.ended.is_set() for lane in self.lanes) and self.refusal is None

    def watch(self) -> None:
        """Cut off every sink whose call takes longer than it may."""
        for lane in self.lanes:
            if not lane.ended.is_set() and lane.overdue():
                limit = lane.sink.sink.config.timeout_seconds
                lane.cut_off(
                    LaneCutOffError(
                        f"no end of `{lane.calling}` within {limit:g} s; see to the target, or raise "
                        f"--sink-option {lane.sink.name}.timeout_seconds"
                    )
                )

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the lanes have ended."""
        working = next((lane for lane in self.lanes if not lane.ended.is_set()), None)
        if working is None:
            time.sleep(seconds)
        else:
            working.ended.wait(seconds)

    def wind_up(self, seconds: float, error: BaseException) -> None:
        """Give the lanes so long to end by themselves, then cut off the rest."""
        deadline = time.monotonic() + seconds
        for lane in self.lanes:
            if not lane.ended.wait(max(0.0, deadline - time.monotonic())):
                lane.cut_off(error)


def _refusal(lane: Lane) -> CrdbExportError:
    error = lane.error
    message = f"sink {lane.sink.name}: {described(error) if error else ''}"
    if not isinstance(error, CrdbExportError):
        return PluginError(f"{message} (plugin {lane.sink.plugin})", plugin=lane.sink.plugin)
    refusal = PreflightError(message)
    refusal.exit_code = error.exit_code
    return refusal
