"""What the author of a sink writes: how it is made, how its target is read, and what it declares itself to be."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from crdbexport.errors import ConfigError
from crdbexport.sinks.base import Sink
from crdbexport.testing.check import Check, CheckFailedError, NotApplicableError
from crdbexport.testing.runner import CHECKS, try_check

NOT_APPLICABLE = "not applicable: "


@dataclass(frozen=True)
class Capabilities:
    """What a sink declares itself to be. Every declaration is tried: one that is not true fails.

    Of `append_only`, `latest_only` and `upsert` at most one holds; without any, the sink keeps one snapshot per cluster
    and logical time.
    """

    transactional: bool = True
    """Readers see nothing of a run before it commits, and nothing of one that is aborted."""
    idempotent: bool = True
    """The same run again changes nothing. Otherwise records arrive at least once."""
    append_only: bool = False
    """Every run stays."""
    latest_only: bool = False
    """Only the latest run of each cluster stays."""
    upsert: bool = False
    """One state of each cluster is kept: records are replaced, and deleted where the run's coverage says so."""
    refuses_records: bool = False
    """Some records cannot be taken and become dead letters; the attribute `poison` describes one."""
    concurrent: bool = True
    """Two runs may publish to the target at the same time. Otherwise the second is refused."""
    evolves: bool = True
    """A stream may gain a nullable field. Otherwise such a run is refused."""
    files: bool = True
    """The sink writes files on this machine."""
    partitioned: bool = False
    """What is published lies apart by the day of its logical time, so that a reader of one day opens no other."""
    remote: bool = False
    """The target may lie on another machine. Otherwise the sink works without a network."""

    def __post_init__(self) -> None:
        if self.append_only + self.latest_only + self.upsert > 1:
            raise ValueError("append_only, latest_only and upsert exclude each other")
        if self.partitioned and (self.latest_only or self.upsert):
            raise ValueError("partitioned goes with sinks that keep days: not with latest_only or upsert")


class SinkConformance:
    """Tries a sink with every check of the kit. With pytest, derive a class named `Test...`: each check is a test.

    A check starts with an empty directory `place` of its own. Only `make_sink` and `read_back` are required.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    not_applicable: ClassVar[Mapping[str, str]] = {}
    """Checks that say nothing about this sink, each with the reason, which the report shows."""
    poison: ClassVar[Mapping[str, Any]] = {"table_name": "x" * 70_000}
    """Values of a `table_grants` record that the sink may find hard to take."""
    wrong_options: ClassVar[Mapping[str, Any]] = {}
    """Options with values that must be refused at the latest in `preflight`, by a message that names one of the two."""
    canary: ClassVar[str] = "crdbexport-canary-5dd6c0a1"
    """A secret that must appear nowhere. Give it to the sink wherever it takes one."""
    canary_variables: ClassVar[Sequence[str]] = ("CRDBEXPORT_PASSWORD", "CRDBEXPORT_SESSION")
    """The environment variables that hold the canary."""
    patience_seconds: ClassVar[float] = 30.0
    """How long any one run may take."""

    remote_options: ClassVar[Mapping[str, Any]] = {}
    """For a sink that declares `remote` and whose place is on this machine: options that name a target elsewhere."""
    crash_points: ClassVar[int] = 12
    """At how many points of a commit its process is killed, two or more."""

    options: Mapping[str, Any] = {}
    """Options from the command line, which go over those of `make_sink`."""
    target: str = ""
    """The target from the command line. Where it is a directory, the places are made in it."""

    def make_sink(self, place: Path) -> Sink:
        """A fresh sink; always on the same target for the same place.

        Checks that kill a process make it there of its class and its options, as an export does: both must pickle.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_sink(self, place)")

    def read_back(self, place: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What readers of the target see now: the rows of each stream, of all runs, in any order.

        Integers are ints, lists are lists, times are datetimes or RFC 3339; a field that is missing is null.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read_back(self, place)")

    def read_day(self, place: Path, day: date) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What readers of one day see who open nothing of any other; of a sink that declares `partitioned`."""
        raise NotImplementedError(f"{type(self).__name__} must define read_day(self, place, day)")

    def serve(self, place: Path) -> AbstractContextManager[object]:
        """What must be up for as long as a check lasts, such as a server."""
        return nullcontext()


def load_conformance(where: str) -> SinkConformance:
    """The conformance of a sink, from `module:Class`; raises `ConfigError` where there is none."""
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: no such class ({error}); give it as module:Class") from error
    if not (isinstance(found, type) and issubclass(found, SinkConformance)):
        raise ConfigError(f"{where} is not a subclass of crdbexport.testing.SinkConformance")
    return found()


def _as_test(check: Check) -> Callable[[SinkConformance, Path], None]:
    def test(self: SinkConformance, tmp_path: Path) -> None:
        import pytest

        __tracebackhide__ = True
        try:
            try_check(check, self, tmp_path)
        except NotApplicableError as reason:
            pytest.skip(f"{NOT_APPLICABLE}{reason}")
        except CheckFailedError as failure:
            pytest.fail(_told(check, failure), pytrace=False)

    test.__name__ = f"test_{check.name}"
    test.__doc__ = check.claim
    return _marked_slow(test) if check.slow else test


def _told(check: Check, failure: CheckFailedError) -> str:
    """What the author reads: the finding and the claim, and of tracebacks only that of the sink's own error."""
    cause = "".join(traceback.format_exception(failure.__cause__)) if failure.__cause__ else ""
    return f"{failure}\n\nThe check `{check.name}` claims: {check.claim}\n{cause}"


def _marked_slow(test: Any) -> Any:
    try:
        import pytest
    except ImportError:  # The command line needs no pytest.
        return test
    return pytest.mark.slow(test)


for _check in CHECKS:
    setattr(SinkConformance, f"test_{_check.name}", _as_test(_check))
