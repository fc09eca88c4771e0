"""Every check finds the defect that it is there for, and no other check does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crdbexport.testing.check import Check, CheckFailedError, NotApplicableError
from crdbexport.testing.runner import CHECKS, try_check
from tests.testing.good_sinks import (
    AppendConformance,
    GoodConformance,
    LatestConformance,
    PartitionedConformance,
    UpsertConformance,
)
from tests.testing.twins import TWINS, Twin

BY_NAME = {each.name: each for each in CHECKS}
PAIRS = [
    pytest.param(twin, name, id=f"{twin.sink.__name__}-{name}", marks=pytest.mark.slow)
    for twin in TWINS
    for name in twin.breaks
]
OTHER_PATIENCE_SECONDS = 5.0


def found(check: Check, twin: Twin, base: Path) -> str:
    """What the check finds; empty where it passes or does not apply."""
    try:
        try_check(check, twin.kit(), base)
    except NotApplicableError:
        return ""
    except CheckFailedError as failure:
        return str(failure)
    return ""


def test_every_check_has_a_twin() -> None:
    assert {name for twin in TWINS for name in twin.breaks} == set(BY_NAME)
    assert len(BY_NAME) == len(CHECKS) >= 40


def test_few_defects_break_more_than_one_check() -> None:
    assert sum(len(twin.breaks) > 1 for twin in TWINS) <= 2


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize(("twin", "name"), PAIRS)
def test_a_check_finds_its_twin(twin: Twin, name: str, tmp_path: Path) -> None:
    assert found(BY_NAME[name], twin, tmp_path)


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.sink.__name__)
def test_no_other_check_finds_it(twin: Twin, tmp_path: Path) -> None:
    patient = replace(twin, patience_seconds=max(twin.patience_seconds, OTHER_PATIENCE_SECONDS), crash_points=3)
    others = [each for each in CHECKS if each.name not in twin.breaks and not each.slow]
    complaints = {each.name: found(each, patient, tmp_path / each.name) for each in others}
    assert {name: told for name, told in complaints.items() if told} == {}


@pytest.mark.slow
class TestGoodSink(GoodConformance):
    """A sink that does everything right passes; so do its kin."""


@pytest.mark.slow
class TestUpsertSink(UpsertConformance):
    pass


@pytest.mark.slow
class TestAppendSink(AppendConformance):
    pass


@pytest.mark.slow
class TestLatestSink(LatestConformance):
    pass


@pytest.mark.slow
class TestPartitionedSink(PartitionedConformance):
    pass
