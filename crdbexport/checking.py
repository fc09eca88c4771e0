"""A look at a cluster before a run: can it be reached, what does the account see, what would a run cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from crdbexport.cluster.connect import connected
from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.dialects.native_metadata import database_metadata
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.cluster.reads import outcome_of
from crdbexport.cluster.sight import Sight
from crdbexport.config import ExportConfig
from crdbexport.records import Gap
from crdbexport.redaction import Redaction
from crdbexport.report import RequestCounts
from crdbexport.selection import Selection

# Health, login, logout.
REQUESTS_A_SESSION = 3


@dataclass
class CheckResult:
    """What a check found. It read every database's own parts and the details of one table in each."""

    dialect: str
    sight: Sight
    walk: WalkCounts = field(default_factory=WalkCounts)
    requests: RequestCounts = field(default_factory=RequestCounts)
    gaps: list[Gap] = field(default_factory=list)
    run_requests: int = 0
    run_seconds: float = 0.0


async def look(config: ExportConfig, redaction: Redaction | None = None) -> CheckResult:
    """Log in, look around, log out; exports nothing. Raises what would end a run. `redaction` learns its secrets."""
    requests = RequestCounts()
    selection = Selection(config.database, config.exclude_database)
    began = time.monotonic()
    async with connected(config, requests, redaction=redaction) as session:
        dialect = await detected(session, config.dialect)
        parts = dialect.parts(config.streams, config.include)
        sight = Sight(dialect.privileges, parts)
        result = CheckResult(dialect.name, sight, requests=requests)
        extractor = Extractor(
            session,
            dialect,
            selection,
            config.streams,
            config.concurrency,
            result.walk,
            result.gaps,
            config.include,
        )
        await extractor.probe(sight.note)
        if dialect.privileges.metadata:
            # The dialect was chosen by whether they answer, and does not tell which databases they left out.
            sight.metadata = await outcome_of(database_metadata(session))
    seconds_a_request = (time.monotonic() - began) / requests.total
    walk = result.walk
    walking = dialect.requests(parts, walk.databases_listed, walk.tables_listed)
    result.run_requests = REQUESTS_A_SESSION + walking
    result.run_seconds = result.run_requests * seconds_a_request
    return result
