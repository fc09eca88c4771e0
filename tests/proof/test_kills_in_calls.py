"""A run that is killed inside SQLite, at any write or sync of a transaction, resumes all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.conftest import Part
from tests.proof.test_kills import told
from tests.proof.tracing import at_call, at_waiting, usable
from tests.proof.trials import traced_calls, trials

pytestmark = [pytest.mark.proof, pytest.mark.timeout(7200)]

OF_SQLITE = "pwrite64,fdatasync,ftruncate,unlink"
LEAST_CALLS = 75


def test_killed_at_any_write_of_the_journal_a_run_resumes_to_the_same_bytes(
    tmp_path: Path, part: Part, tell: Callable[[str], None]
) -> None:
    if not usable():
        tell("killed inside SQLite: not once, for strace is not here or may not attach")
        pytest.skip("needs strace")
    with trials("documented", tmp_path) as cluster:
        found = traced_calls(cluster, OF_SQLITE, "journal.db")
        assert len(found) >= LEAST_CALLS
        chosen, started, done = part.of(found, at_least=6), time.monotonic(), []
        for call in chosen:
            with at_waiting(cluster.root / "place", *at_call(call.name, call.number, "signal=SIGKILL")) as begun:
                done.append(cluster.interrupted({"wait_at": call.point, "begun": begun}))
    tell(told(f"killed at {len(chosen)} of {len(found)} calls of SQLite", done, started))
    assert [each for each in done if each.troubles] == []
    assert [each for each in done if not each.struck] == []
