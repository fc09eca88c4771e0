"""What an extraction of a native cluster told, as the tests of both ways through it ask for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.extractor import Extractor
from crdbexport.records import STREAMS
from crdbexport.report import RequestCounts
from crdbexport.sandbox.base import ClusterApp
from crdbexport.selection import Selection

Read = Callable[..., "Told"]
Row = dict[str, Any]


class Told:
    """Rows as dictionaries, in order, and the account of the extraction."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Row]] = []
        self.requests = RequestCounts()
        self.extractor: Any = None

    def rows(self, stream: str, **where: Any) -> list[Row]:
        return [row for name, row in self.told if name == stream and where.items() <= row.items()]

    @property
    def gaps(self) -> dict[tuple[str | None, ...], str]:
        """The reason of each gap by part, database, schema and table."""
        return {(gap.part, gap.database, gap.schema, gap.table): gap.reason for gap in self.extractor.gaps}


def reader(serve: Callable[[ClusterApp], str], in_session: Any) -> Read:
    """Extracts whatever is served: how the fixture `read` does it."""

    def run(
        app: ClusterApp,
        streams: tuple[str, ...] = tuple(STREAMS),
        database: tuple[str, ...] = (),
        concurrency: int = 4,
        include: tuple[str, ...] = (),
        **changes: Any,
    ) -> Told:
        result = Told()

        async def work(session: Any) -> None:
            dialect = await detected(session, "auto")
            assert dialect.name == "native"
            result.extractor = Extractor(session, dialect, Selection(database), streams, concurrency, include=include)
            async with aclosing(result.extractor.rows()) as told:
                async for stream, rows in told:
                    names = [field.name for field in STREAMS[stream].own_fields]
                    result.told += [(stream, dict(zip(names, row, strict=True))) for row in rows]

        in_session(serve(app), work, counts=result.requests, concurrency=concurrency, **changes)
        counts = result.extractor.counts
        assert counts.details_wanted == counts.details_fetched + len(result.extractor.gaps)
        assert counts.tables_done == counts.tables_listed
        return result

    return run
