"""A fault, and the few ways in which one goes with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tests.faults.fault_server import Behaviour, Rule

USERS, OTHER_USERS = "/databases/bank/tables/users", "/databases/movr/tables/users"
LIST, ANY = "/databases", "/.*"
# Requests of a healthy run, login and logout included, and how often one that may pass is sent.
HEALTHY, ATTEMPTS = {"documented": 16, "native": 18}, 5
NO_GAPS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Fault:
    """A fault and its outcome: the exit code, the gaps by reason, and at most how many requests.

    `same` tells that what is published is that of a healthy run, but for what the gaps name; `strikes` at least how
    many requests it meets; `slow` that a sibling in the fast part takes the same way through the program.
    """

    name: str
    rules: tuple[Rule, ...]
    exit_code: int
    gaps: Mapping[str, int]
    requests: int
    form: str = "documented"
    same: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    strikes: int = 1
    slow: bool = False


def passes(
    name: str, does: Behaviour, at: str = USERS, *, more: int = 1, form: str = "documented", **settings: Any
) -> Fault:
    """It happens once, costs `more` requests, and leaves no trace in what is published."""
    return Fault(name, (Rule(at, [does]),), 0, {}, HEALTHY[form] + more, form, settings=settings)


def befalls(name: str, does: Behaviour, reason: str = "bad_body", *, more: int = 0) -> Fault:
    """It happens once at one table, which leaves no trace, and for ever at another, which becomes a gap."""
    rules = (Rule(USERS, [does]), Rule(OTHER_USERS, [does], lasting=True))
    return Fault(name, rules, 3, {reason: 1}, HEALTHY["documented"] + ATTEMPTS + more, strikes=2)


def harmless(name: str, does: Behaviour, at: str = ANY, **settings: Any) -> Fault:
    """It happens every time, costs no request, and leaves no trace in what is published."""
    return Fault(name, (Rule(at, [does], lasting=True),), 0, {}, HEALTHY["documented"], settings=settings)


def stays(
    name: str,
    does: Behaviour,
    reason: str,
    at: str = USERS,
    *,
    tried: int = ATTEMPTS,
    gaps: int = 1,
    exit_code: int = 3,
    form: str = "documented",
    same: bool = True,
    **settings: Any,
) -> Fault:
    """It happens every time, and becomes gaps of this reason."""
    at_most = HEALTHY[form] + gaps * (tried - 1)
    return Fault(name, (Rule(at, [does], lasting=True),), exit_code, {reason: gaps}, at_most, form, same, settings)


def ends(
    name: str,
    does: Behaviour,
    exit_code: int,
    at: str = LIST,
    *,
    requests: int,
    gaps: Mapping[str, int] = NO_GAPS,
    form: str = "documented",
    **settings: Any,
) -> Fault:
    """It happens every time, and ends the run with this exit code: nothing is published."""
    return Fault(name, (Rule(at, [does], lasting=True),), exit_code, gaps, requests, form, settings=settings)


def tells(
    name: str, does: Behaviour, at: str = USERS, *, form: str = "documented", more: int = 0, **settings: Any
) -> Fault:
    """It is odd, and yet an answer: the run is complete, and publishes what was told."""
    return Fault(name, (Rule(at, [does], lasting=True),), 0, {}, HEALTHY[form] + more, form, False, settings)


def rarely(*faults: Fault) -> list[Fault]:
    """These faults, in the slow part."""
    return [replace(each, slow=True) for each in faults]
