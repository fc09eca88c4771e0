"""Every fault of the table, against a whole export into two sinks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.faults.conftest import Export
from tests.faults.fault import Fault
from tests.faults.fault_server import FaultServer
from tests.faults.promises import (
    assert_nothing_lost_but,
    assert_published_as_reported,
    assert_secrets_kept,
    assert_secrets_sent_where_they_belong,
)
from tests.faults.small_world import documented, native, on_the_wire
from tests.faults.table_of_faults import FAULTS

WORLDS = {"documented": on_the_wire(documented()), "native": on_the_wire(native())}
STATUS = {0: "complete", 3: "incomplete", 4: "failed", 5: "failed"}


@pytest.mark.parametrize(
    "fault",
    # One in three is enough to see at once that something is wrong.
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.slow or number % 3 > 0))
        for number, each in enumerate(FAULTS)
    ],
)
def test_a_fault_has_its_outcome_and_no_other(fault: Fault, suffer: Export, healthy: dict[str, Any]) -> None:
    run = suffer(FaultServer(WORLDS[fault.form], fault.rules), **fault.settings)
    report = run.report
    assert (report.exit_code, Counter(gap.reason for gap in report.gaps)) == (fault.exit_code, fault.gaps), report.error
    assert report.status == STATUS[fault.exit_code]
    assert run.server.struck.total() >= fault.strikes
    assert len(run.server.requests) <= fault.requests
    assert run.seconds < 8
    assert_published_as_reported(run)
    assert_secrets_kept(run)
    assert_secrets_sent_where_they_belong(run.server.requests)
    if fault.exit_code in (0, 3) and fault.same:
        # The native form gives some tables a second look, after all others.
        in_order = fault.form == "documented"
        assert_nothing_lost_but(report.gaps, run.lines, healthy[fault.form], in_order=in_order)


def test_the_table_has_no_fault_twice() -> None:
    assert len({each.name for each in FAULTS}) == len(FAULTS) >= 80
