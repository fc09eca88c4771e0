"""What the proofs share: how much of each is tried, and a line at the end of the log that says what was tried.

`--proof-part N` tries about one point in N of every proof, drawn by `--proof-seed`; without it, all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest

T = TypeVar("T")
OUTCOMES = {"passed": "ok  ", "skipped": "NONE", "failed": "FAIL"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proofs")
    group.addoption("--proof-part", type=int, default=1, metavar="N", help="try one point in N of each proof")
    group.addoption("--proof-seed", type=int, default=20260305, metavar="SEED", help="which points those are")


@dataclass(frozen=True)
class Part:
    """How much of a proof is tried: all of it where `divisor` is 1."""

    divisor: int
    seed: int

    @property
    def whole(self) -> bool:
        return self.divisor == 1

    def amount(self, whole: int, at_least: int = 1) -> int:
        """How many to try where the whole proof tries so many."""
        return whole if self.whole else min(whole, max(at_least, whole // self.divisor))

    def of(self, points: Sequence[T], at_least: int = 1) -> list[T]:
        """The points to try, in their order."""
        chosen = random.Random(self.seed).sample(range(len(points)), self.amount(len(points), at_least))
        return [points[number] for number in sorted(chosen)]

    def __str__(self) -> str:
        return "whole" if self.whole else f"one point in {self.divisor}, --proof-seed {self.seed}"


def part_of(config: pytest.Config) -> Part:
    # A run that does not name this directory learns of its options too late to be given them.
    return Part(config.getoption("proof_part", 1), config.getoption("proof_seed", 0))


@pytest.fixture(scope="session")
def part(pytestconfig: pytest.Config) -> Part:
    """How much of the proof to try."""
    return part_of(pytestconfig)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says in one line at the end of the log what was tried, and what came of it; call it before asserting."""
    return lambda line: record_property("proof", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = [
        f"{OUTCOMES[report.outcome]} {value}"
        for outcome in OUTCOMES
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "proof" and report.when == "call"
    ]
    if lines:
        terminalreporter.section(f"proofs ({part_of(config)})")
        for line in lines:
            terminalreporter.line(line)
