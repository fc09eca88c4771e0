"""The cache behind the metadata endpoints, and the job that fills it when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from crdbexport.sandbox.native.quirks import Quirks
from crdbexport.sandbox.native.replies import rfc3339

Clock = Callable[[], datetime]

VALID_FOR = timedelta(minutes=20)
USUAL_RUN = timedelta(seconds=31)
NANOSECONDS = 10**9


class StatsJob:
    """Runs for `job_seconds` of the clock once it is triggered; the cache is as old as its last completion."""

    def __init__(self, quirks: Quirks, clock: Clock) -> None:
        self._clock = clock
        self._seconds = quirks.job_seconds
        self._unclaimed = quirks.job_unclaimed
        self._running_since: datetime | None = None
        self._completed: datetime | None = None
        if not quirks.cold_cache:
            self._completed = clock() - timedelta(seconds=quirks.stats_age_seconds)
        self._started = self._completed and self._completed - USUAL_RUN

    def completed(self) -> datetime | None:
        """When the cache was filled last; None while it never was."""
        self._settle()
        return self._completed

    def status(self) -> dict[str, Any]:
        """The answer to GET."""
        self._settle()
        running = self._running_since is not None
        return {
            "current_status": "RUNNING" if running else "NOT_RUNNING",
            "progress": round(self._elapsed() / self._seconds, 3) if running else int(self._completed is not None),
            "last_start_time": rfc3339(self._started),
            "last_completed_time": rfc3339(self._completed),
            "last_updated_time": rfc3339(self._clock() if running else self._completed),
            "data_valid_duration": int(VALID_FOR.total_seconds()) * NANOSECONDS,
            "automatic_updates_enabled": False,
        }

    def trigger(self, *, only_if_stale: bool) -> dict[str, Any]:
        """The answer to POST; starts a run unless something is in the way."""
        self._settle()
        now = self._clock()
        if self._unclaimed:
            return _told("Job is unclaimed")
        if self._running_since is not None:
            return _told("Job is already running")
        if only_if_stale and self._completed is not None and now - self._completed < VALID_FOR:
            return _told("Not enough time has elapsed since last job run")
        self._running_since = self._started = now
        return _told("Job triggered successfully", triggered=True)

    def _elapsed(self) -> float:
        return (self._clock() - self._running_since).total_seconds() if self._running_since else 0.0

    def _settle(self) -> None:
        """A run whose time is over has ended by itself."""
        if self._running_since is not None and self._elapsed() >= self._seconds:
            self._completed = self._running_since + timedelta(seconds=self._seconds)
            self._running_since = None


def _told(message: str, *, triggered: bool = False) -> dict[str, Any]:
    return {"job_triggered": triggered, "message": message}
