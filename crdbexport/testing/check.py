"""What a check is: a claim about a sink, and the function that tries it on a harness."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from crdbexport.testing.conformance import Capabilities
    from crdbexport.testing.harness import Harness

Kind = Literal["safety", "liveness", "fidelity", "secrecy", "behaviour"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Trial = Callable[["Harness"], None]


class CheckFailedError(AssertionError):
    """The sink does not keep what the check claims."""


class NotApplicableError(Exception):
    """The check says nothing about this sink, for the reason given."""


@dataclass(frozen=True)
class Check:
    """One check, as data: `needs` names the capability without which it does not apply."""

    name: str
    kind: Kind
    claim: str
    trial: Trial
    needs: str = ""
    slow: bool = False

    def applies_to(self, capabilities: Capabilities) -> bool:
        return not self.needs or bool(getattr(capabilities, self.needs))


def check(kind: Kind, *, needs: str = "", slow: bool = False) -> Callable[[Trial], Check]:
    """Make a check of a function: its name is the name of the check, its docstring the claim."""

    def made(trial: Trial) -> Check:
        claim = " ".join((inspect.getdoc(trial) or "").split())
        return Check(trial.__name__, kind, claim, trial, needs, slow)

    return made
