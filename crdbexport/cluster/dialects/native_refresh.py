"""`table_metadata/updatejob/`, of v24.3 and later: the server's own job that measures its tables, run on demand.

The server is asked to measure only what is stale by its own setting (20 minutes unless somebody changed it), so that
the request is safe to repeat: one that was lost, or that came too early, starts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from crdbexport.cluster.dialects.wire_native import JobStatusReply, JobTriggerReply
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.pace import Sleep
from crdbexport.cluster.session import Session
from crdbexport.errors import UnreadableError

PATH = ("table_metadata", "updatejob")
STATUS = Endpoint("GET", PATH, trailing_slash=True)
# The server takes any value but "false".
TRIGGER = Endpoint("POST", PATH, trailing_slash=True, query=(("onlyIfStale", 1),))
STATUS_REPLY = msgspec.json.Decoder(JobStatusReply, strict=False)
TRIGGER_REPLY = msgspec.json.Decoder(JobTriggerReply, strict=False)

FRESH = "Not enough time has elapsed since last job run"
BUSY = "Job is already running"
UNCLAIMED = "Job is unclaimed"
RUNNING = "RUNNING"
INTERNAL_ERROR = 500

FIRST_WAIT_SECONDS = 0.25
WAIT_GROWTH = 1.5
LONGEST_WAIT_SECONDS = 10.0
GIVE_UP_SECONDS = 3600.0

log = logging.getLogger(__name__)


@dataclass
class StatsRefresh:
    """Has the server measure its tables where its measures are stale, and waits for that, up to an hour.

    Whatever keeps the server from it is one warning; only what ends the run is raised. `share` is how much of the
    work is done, None while nothing is waited for.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep
    share: float | None = None

    async def __call__(self, session: Session) -> None:
        try:
            await self._until_fresh(session)
        except UnreadableError as error:
            _tell_obstacle(error)
        finally:
            self.share = None

    async def _until_fresh(self, session: Session) -> None:
        began, running = self.clock(), False
        for seconds in _waits():
            # A job that was just started may not say so yet, and one that is not ready yet is called running: only
            # the server's word that its measures are fresh ends the waiting.
            if not running:
                reply = await session.post(TRIGGER, TRIGGER_REPLY.decode)
                if not (reply.job_triggered or reply.message == BUSY):
                    _tell_end(reply.message)
                    return
                self._begin()
            if self.clock() - began >= GIVE_UP_SECONDS:
                _warn(f"the cluster is not done after {GIVE_UP_SECONDS / 60:.0f} minutes")
                return
            await self.sleep(seconds)
            status = await session.get(STATUS, STATUS_REPLY.decode)
            running = status.current_status == RUNNING
            self.share = status.progress if running else self.share

    def _begin(self) -> None:
        if self.share is None:
            self.share = 0.0
            log.info("the cluster refreshes its statistics", extra={"event": "stats_refresh_started"})


def warn_of_no_job() -> None:
    """Say that the server cannot do this."""
    _warn("the server has no such job; v24.3 and later have one")


def _tell_end(message: str) -> None:
    if message == FRESH:
        log.info("the cluster's statistics are fresh", extra={"event": "stats_fresh"})
    elif message == UNCLAIMED:
        _warn("none of the cluster's nodes has taken the job so far")
    else:
        _warn("the server did not start the job, for a reason unknown to this version")


def _tell_obstacle(error: UnreadableError) -> None:
    if error.reason == "unaddressable":
        warn_of_no_job()
    elif error.reason in ("not_found", "forbidden"):
        _warn(f"{error}; the account may not start the job: grant it CONNECT on a database, or the role admin")
    elif error.http_status == INTERNAL_ERROR:
        _warn(f"{error}; newer versions may let only the role admin start the job")
    else:
        _warn(str(error))


def _waits() -> Iterator[float]:
    """How long to wait before each look, in seconds."""
    seconds = FIRST_WAIT_SECONDS
    while True:
        yield seconds
        seconds = min(seconds * WAIT_GROWTH, LONGEST_WAIT_SECONDS)


def _warn(why: str) -> None:
    log.warning(
        "--refresh-stats: %s; the run goes on with the statistics there are, stats_as_of tells their age",
        why,
        extra={"event": "stats_not_refreshed"},
    )
