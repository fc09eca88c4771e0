"""A run that is killed shows nothing by halves, and ends, when it is made again, as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.proof.conftest import Part
from tests.proof.mutants import MUTANTS
from tests.proof.trials import FORMS, Trial, Trials, trials

pytestmark = [pytest.mark.proof, pytest.mark.timeout(7200)]

LEAST_POINTS = 500
DOUBLE_KILLS = 150
# A resumed run comes to fewer points than one from the start.
LEAST_KILLED_TWICE = 0.6
TRIES_A_MUTANT = 60

Tell = Callable[[str], None]


@pytest.fixture(scope="module", params=FORMS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials(request.param, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials("documented", tmp_path_factory.mktemp("cluster")) as made:
        yield made


def told(what: str, done: Sequence[Trial], started: float) -> str:
    kills, wrong = sum(each.struck for each in done), sum(bool(each.troubles) for each in done)
    return f"{what}: {len(done)} runs, {kills} kills, {wrong} differ, {time.monotonic() - started:.0f} s"


def test_killed_at_any_point_a_run_resumes_to_the_same_bytes(cluster: Trials, part: Part, tell: Tell) -> None:
    assert len(cluster.points) >= LEAST_POINTS
    points, started = part.of(cluster.points, at_least=10), time.monotonic()
    done = [cluster.interrupted({"die_at": point}) for point in points]
    tell(told(f"killed at {len(points)} of {len(cluster.points)} points ({cluster.form})", done, started))
    assert [each for each in done if each.troubles] == []
    assert [each for each in done if not each.struck] == []


def test_killed_again_while_it_resumes_a_run_still_comes_to_the_same_bytes(
    cluster: Trials, part: Part, tell: Tell
) -> None:
    started, done = time.monotonic(), []
    for ends in part.of(twice(cluster.points, part.seed), at_least=6):
        done.append(cluster.interrupted(*ends))
    tell(told(f"killed again while resuming ({cluster.form})", done, started))
    assert [each for each in done if each.troubles] == []
    assert sum(each.struck == 2 for each in done) >= LEAST_KILLED_TWICE * len(done)


def twice(points: Sequence[str], seed: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Two kills, the second after so many points of the second attempt as the first has left, and those it repeats."""
    drawn = random.Random(seed)
    pairs = []
    for _ in range(DOUBLE_KILLS):
        first = drawn.randrange(len(points))
        pairs.append(({"die_at": points[first]}, {"die_after": drawn.randrange(1, len(points) - first + 40)}))
    return pairs


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_mistake_is_found_by_killing(documented: Trials, name: str, part: Part, tell: Tell) -> None:
    near = [point for point in documented.points if MUTANTS[name].near in point]
    assert documented.interrupted({"die_at": near[0]}).troubles == []
    tried = 0
    for tried, point in enumerate(random.Random(part.seed).sample(near, min(len(near), TRIES_A_MUTANT)), 1):
        trial = documented.interrupted({"die_at": point}, mutant=name)
        if trial.troubles:
            tell(f"mutant '{name}': found by kill {tried}: {trial.troubles[0][:90]}")
            return
    pytest.fail(f"not found by {tried} kills")
