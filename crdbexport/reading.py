"""The reading half of a run: the extractor at work on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing, suppress

from crdbexport.cluster.connect import connected
from crdbexport.cluster.dialects import Dialect
from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.dialects.native_refresh import StatsRefresh, warn_of_no_job
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.cluster.remembering import Memory, RememberingDialect
from crdbexport.config import ExportConfig
from crdbexport.errors import ClusterRefusedError
from crdbexport.pipeline.intake import Intake
from crdbexport.records import Gap
from crdbexport.redaction import Redaction
from crdbexport.report import ObjectCounts, RequestCounts
from crdbexport.selection import Selection


class Reading:
    """Reads the cluster into the intake, then calls `seal`; on any error it sends the spool's readers away instead.

    What `memory` holds of an earlier attempt is not asked for again; `requests` goes on counting that attempt's.
    `error` holds what ended it. The counters may be watched while it works. A thread of its own lets a run work inside
    another event loop, and lets it be cancelled from any thread.
    """

    def __init__(
        self,
        config: ExportConfig,
        intake: Intake,
        seal: Callable[[Reading], None],
        memory: Memory,
        requests: RequestCounts | None,
        redaction: Redaction,
    ) -> None:
        self.walk = WalkCounts()
        self.requests = requests or RequestCounts()
        self.refresh = StatsRefresh()
        self.gaps: list[Gap] = []
        self.error: BaseException | None = None
        self._whole = False
        self.dialect: Dialect | None = None
        self._config, self._intake, self._seal, self._memory = config, intake, seal, memory
        self._redaction = redaction
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._reason: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="crdbexport-extract", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self, reason: BaseException) -> None:
        """End the reading soon: no new requests, and the session is logged out. `reason` becomes its error."""
        if self._reason is None and self._loop is not None and self._task is not None:
            self._reason = reason
            # A loop that has just closed has nothing left to stop.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    def objects(self) -> ObjectCounts:
        """What was asked for; of a reading that was cut short, what it had come to."""
        walk = self.walk
        return ObjectCounts(
            listed=walk.databases_listed + walk.tables_listed,
            details_wanted=walk.details_wanted if self._whole else walk.details_fetched + len(self.gaps),
            details_fetched=walk.details_fetched,
        )

    @property
    def dialect_name(self) -> str | None:
        """The dialect that the server was found to speak; None until it is known."""
        return self.dialect.name if self.dialect else None

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
            self._seal(self)
        except BaseException as error:  # noqa: BLE001 (told to the thread that supervises, which raises it)
            self.error = self._reason or error
            self._intake.spool.cancel(self.error)
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        config = self._config
        selection = Selection(config.database, config.exclude_database)
        async with connected(config, self.requests, redaction=self._redaction) as session:
            refresh = self.refresh if config.refresh_stats else None
            self.dialect = await detected(session, config.dialect, refresh, self._memory)
            if refresh and self.dialect.name == "documented":
                warn_of_no_job()
            extractor = Extractor(
                session,
                RememberingDialect(self.dialect, self._memory),
                selection,
                config.streams,
                config.concurrency,
                self.walk,
                self.gaps,
                config.include,
            )
            await self._walk(extractor)
        self._intake.finish()
        self._whole = True

    async def _walk(self, extractor: Extractor) -> None:
        try:
            async with aclosing(extractor.rows()) as told:
                async for stream, rows in told:
                    self._intake.add(stream, rows)
        except ClusterRefusedError:
            if self.gaps and not self.walk.details_fetched:
                # Nothing but refusals, which the next attempt shall not take for granted.
                self._memory.forget()
            raise
