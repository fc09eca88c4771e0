"""A look at a cluster before a run: can it be reached, what does the account see, what would a run cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from crdbexport.cluster.connect import chosen_dialect, connected
from crdbexport.cluster.extractor import Extractor, WalkCounts
from crdbexport.config import ExportConfig
from crdbexport.records import Gap
from crdbexport.report import RequestCounts
from crdbexport.selection import Selection

# Health, login, list of databases, logout.
REQUESTS_A_RUN = 4


@dataclass
class CheckResult:
    """What a check found. It read every database's own parts and the details of one table in each."""

    dialect: str
    walk: WalkCounts = field(default_factory=WalkCounts)
    requests: RequestCounts = field(default_factory=RequestCounts)
    gaps: list[Gap] = field(default_factory=list)
    run_requests: int = 0
    run_seconds: float = 0.0


async def look(config: ExportConfig) -> CheckResult:
    """Log in, look around, log out; exports nothing. Raises what would end a run."""
    dialect = chosen_dialect(config)
    result = CheckResult(dialect.name)
    selection = Selection(config.database, config.exclude_database)
    began = time.monotonic()
    async with connected(config, result.requests) as session:
        extractor = Extractor(session, dialect, selection, config.streams, config.concurrency, result.walk, result.gaps)
        await extractor.probe()
    seconds_a_request = (time.monotonic() - began) / result.requests.total
    parts = dialect.parts(config.streams)
    per_database = parts.database_details + parts.database_grants + parts.tables
    tables = result.walk.tables_listed if parts.table_details else 0
    result.run_requests = REQUESTS_A_RUN + result.walk.databases_listed * per_database + tables
    result.run_seconds = result.run_requests * seconds_a_request
    return result
