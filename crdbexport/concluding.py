"""What a run that is read to its end amounts to for its sinks: is it complete, and what do its gaps hide?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from crdbexport.config import ExportConfig
from crdbexport.pipeline.state import Extraction
from crdbexport.pipeline.transforming import TransformChain
from crdbexport.pipeline.verdict import unallowed
from crdbexport.records import Gap
from crdbexport.report import RunReport, Shrink
from crdbexport.selection import Coverage, Selection, coverage_of
from crdbexport.sinks.base import Outcome

NOTHING_READ = Outcome(complete=False, gaps=(), coverage={}, rows={})


@dataclass(frozen=True)
class Conclusion:
    """Draws conclusions under a configuration; names are told as its transforms publish them."""

    config: ExportConfig
    chain: TransformChain

    def outcome(self, facts: Extraction) -> Outcome:
        """What sinks are told when they commit the whole run."""
        gaps, shrunk = self._renamed(facts.gaps), self.unallowed_shrinks(facts)
        return Outcome(
            complete=not shrunk and not unallowed(facts.gaps, self.config.allow_gaps),
            gaps=gaps,
            coverage={name: self._coverage(name, gaps, known=not shrunk) for name in self.config.streams},
            rows={name: counts.extracted - counts.filtered for name, counts in facts.streams.items()},
        )

    def unallowed_shrinks(self, facts: Extraction) -> tuple[Shrink, ...]:
        return () if self.config.allow_shrink else facts.shrunk

    def published(self, report: RunReport) -> RunReport:
        """The report as strangers may see it: its own gaps tell the operator real names, a transform may hide them."""
        return msgspec.structs.replace(report, gaps=self._renamed(report.gaps))

    def _coverage(self, stream: str, gaps: Iterable[Gap], *, known: bool) -> Coverage:
        selection = Selection(self.config.database, self.config.exclude_database)
        rename = self.chain.rename if self.chain.renames else None
        # Privileges that one stream shows to be lost hide rows of the others as well, if fewer.
        return coverage_of(stream, selection, gaps, rename) if known else Coverage(selection, known=False)

    def _renamed(self, gaps: Iterable[Gap]) -> tuple[Gap, ...]:
        return tuple(self.chain.rename_gap(gap) for gap in gaps)
