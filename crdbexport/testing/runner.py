"""All checks of the kit, and running them, with pytest or without."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from crdbexport.errors import ConfigError
from crdbexport.testing import checks_behaviour, checks_fidelity, checks_liveness, checks_safety, checks_secrecy
from crdbexport.testing.check import Check, CheckFailedError, NotApplicableError
from crdbexport.testing.harness import Harness

if TYPE_CHECKING:
    from crdbexport.testing.conformance import SinkConformance

CHECKS: tuple[Check, ...] = (
    *checks_safety.CHECKS,
    *checks_liveness.CHECKS,
    *checks_fidelity.CHECKS,
    *checks_secrecy.CHECKS,
    *checks_behaviour.CHECKS,
)

Verdict = Literal["passed", "failed", "not applicable"]


class Result(msgspec.Struct, frozen=True):
    """What became of one check; `claim` is what it tries, `reason` says why it failed, or does not apply."""

    name: str
    kind: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    claim: str = ""


def try_check(check: Check, kit: SinkConformance, base: Path) -> None:
    """Run one check in a directory of its own; raises what it finds, or `NotApplicableError`."""
    _refuse_bad_exemptions(kit)
    if reason := kit.not_applicable.get(check.name):
        raise NotApplicableError(reason)
    if not check.applies_to(kit.capabilities):
        raise NotApplicableError(f"{check.needs} is not declared")
    harness = Harness(kit, base)
    with _variables(dict.fromkeys(kit.canary_variables, kit.canary)), kit.serve(harness.place):
        check.trial(harness)


def run_checks(kit: SinkConformance, told: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Run every check in a directory of its own: in the kit's target, where that is one; `told` hears of each at once.

    Raises `ConfigError` where the kit, or the options it was given, are wrong.
    """
    results = []
    base = kit.target if kit.target and Path(kit.target).is_dir() else None
    with tempfile.TemporaryDirectory(prefix="crdbexport-conformance-", dir=base) as directory:
        for check in CHECKS:
            results.append(_result(check, kit, Path(directory) / check.name))
            told(results[-1])
    return results


def _result(check: Check, kit: SinkConformance, base: Path) -> Result:
    began = time.monotonic()
    verdict: Verdict = "passed"
    reason = ""
    try:
        try_check(check, kit, base)
    except ConfigError:
        raise
    except NotApplicableError as why:
        verdict, reason = "not applicable", str(why)
    except CheckFailedError as failure:
        verdict, reason = "failed", str(failure)
    except Exception as error:  # noqa: BLE001 (whatever the author's own code raises is a finding, not an end)
        verdict, reason = "failed", f"{type(error).__name__}: {error}"
    return Result(check.name, check.kind, verdict, reason, round(time.monotonic() - began, 3), check.claim)


def _refuse_bad_exemptions(kit: SinkConformance) -> None:
    unknown = set(kit.not_applicable) - {each.name for each in CHECKS}
    without_reason = [name for name, reason in kit.not_applicable.items() if not reason.strip()]
    if unknown or without_reason:
        names = ", ".join(sorted([*unknown, *without_reason]))
        raise ConfigError(f"not_applicable of {type(kit).__name__}: {names}: give the name of a check, and the reason")


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
