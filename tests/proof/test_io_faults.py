"""A disk that is full or fails, or a process without descriptors, at any file call: told, and nothing by halves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import pytest

from tests.proof.conftest import Part
from tests.proof.doomed import FAILS
from tests.proof.tracing import at_call, at_waiting, usable
from tests.proof.trials import Trial, Trials, traced_calls, trials

pytestmark = [pytest.mark.proof, pytest.mark.timeout(7200)]

LEAST_CALLS = 150
IN_TURN = cycle(("ENOSPC", "EIO"))
MODES = (False, True, True)
LEAST_POINTS = {"ENOSPC": 120, "EMFILE": 100, "EIO": 250}
Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials("documented", tmp_path_factory.mktemp("cluster")) as made:
        yield made


def told(what: str, done: Sequence[Trial], started: float) -> str:
    codes = ", ".join(
        f"{count} x exit {code}" for code, count in sorted(Counter(e.ends[0]["code"] for e in done).items())
    )
    wrong = sum(bool(each.troubles) for each in done)
    return f"{what}: {len(done)} runs ({codes}), {wrong} differ, {time.monotonic() - started:.0f} s"


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", FAILS)
def test_a_file_call_that_fails_ends_a_run_cleanly_and_the_same_command_completes_it(
    cluster: Trials, error: str, lasting: bool, part: Part, tell: Tell
) -> None:
    points = [point for point in cluster.points if what(point) in FAILS[error]]
    assert len(points) >= LEAST_POINTS[error]
    chosen, started = part.of(points, at_least=5), time.monotonic()
    done = [cluster.failed(fail_at=point, error=error, lasting=lasting) for point in chosen]
    mode = "from then on" if lasting else "once"
    tell(told(f"{error} {mode} at {len(chosen)} of {len(points)} file calls", done, started))
    assert [each for each in done if each.troubles] == []
    assert [each for each in done if not each.struck] == []


def test_a_call_of_sqlite_or_arrow_that_fails_ends_a_run_cleanly_too(cluster: Trials, part: Part, tell: Tell) -> None:
    if not usable():
        tell("faults inside SQLite and Arrow: none, for strace is not here or may not attach")
        pytest.skip("needs strace")
    found = [
        *traced_calls(cluster, "pwrite64,fdatasync,ftruncate,openat", "journal.db"),
        *traced_calls(cluster, "write,openat", "/_staging/c1.r1/")[::4],
    ]
    assert len(found) >= LEAST_CALLS
    chosen, started, done = part.of(list(zip(found, cycle(MODES))), at_least=6), time.monotonic(), []
    for call, lasting in chosen:
        acts = f"error={'EMFILE' if call.name == 'openat' else next(IN_TURN)}"
        options = at_call(call.name, call.number, acts, lasting=lasting)
        with at_waiting(cluster.root / "place", *options) as begun:
            done.append(cluster.failed(wait_at=call.point, begun=begun))
    tell(told(f"errors at {len(chosen)} of {len(found)} calls of SQLite and Arrow", done, started))
    assert [each for each in done if each.troubles] == []
    assert [each for each in done if not each.struck] == []
    assert any(each.ends[0]["code"] for each in done)


def what(point: str) -> str:
    """What happens at a point, as the faults name it."""
    return next((each for each in sorted(FAILS["EIO"], key=len, reverse=True) if point.startswith(f"{each} ")), "")
