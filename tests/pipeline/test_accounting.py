from __future__ import annotations

from typing import Any

import pytest

from crdbexport import Artifact, Batch, Receipt, RecordRefusedError, SinkRefusedError
from crdbexport.pipeline.accounting import sink_report
from crdbexport.report import DeliveryCounts, StreamCounts

STREAMS = {"database_grants": StreamCounts(extracted=6, filtered=2, batches=3), "tables": StreamCounts()}


def ending(telling: Any, *, commit: bool) -> Any:
    """A sink that refuses ann's record, and then commits or fails in its commit."""

    class Ending(telling):  # type: ignore[misc]
        def write(self, batch: Batch) -> None:
            refused = [row["record_id"] for row in batch.rows() if row["grantee"] == "ann"]
            if refused:
                raise RecordRefusedError(refused, "no")

        def commit(self) -> Receipt:
            if not commit:
                raise SinkRefusedError("gone")
            return Receipt((Artifact("there"),), 12)

    return Ending


def test_a_committed_sink_has_delivered_what_it_accepted(deliver: Any, telling: Any) -> None:
    report = sink_report(deliver(ending(telling, commit=True), name="lake"), STREAMS)

    assert report.streams == {"database_grants": DeliveryCounts(3, 1, 0), "tables": DeliveryCounts()}
    assert (report.name, report.type, report.status, report.error) == ("lake", "type", "committed", None)
    assert (report.bytes, report.artifacts) == (12, (Artifact("there"),))


def test_a_failed_sink_has_delivered_nothing_whatever_it_accepted(deliver: Any, telling: Any) -> None:
    report = sink_report(deliver(ending(telling, commit=False)), STREAMS)

    assert report.streams == {"database_grants": DeliveryCounts(0, 1, 3), "tables": DeliveryCounts()}
    assert (report.status, report.error) == ("failed", "gone")
    assert (report.bytes, report.artifacts) == (0, ())


@pytest.mark.parametrize("commit", [True, False])
def test_every_record_is_accounted_for_once(deliver: Any, telling: Any, commit: bool) -> None:
    report = sink_report(deliver(ending(telling, commit=commit)), STREAMS)

    for name, counts in STREAMS.items():
        told = report.streams[name]
        assert counts.extracted == counts.filtered + told.delivered + told.dead_lettered + told.undelivered


def test_a_sink_that_is_still_at_work_counts_as_aborted(make_lane: Any, telling: Any) -> None:
    report = sink_report(make_lane(telling), STREAMS)

    assert report.status == "aborted"
    assert report.streams["database_grants"] == DeliveryCounts(0, 0, 4)


def test_the_target_is_the_one_that_may_be_shown(deliver: Any, telling: Any) -> None:
    class Secretive(telling):  # type: ignore[misc]
        def shown_target(self) -> str:
            return "there, without its key"

    assert sink_report(deliver(telling), STREAMS).target == "there"
    assert sink_report(deliver(Secretive), STREAMS).target == "there, without its key"
