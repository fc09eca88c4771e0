"""One small cluster, the run of it that nothing interrupts, and runs that are interrupted, compared with that one.

The lakes hold an earlier run of the same snapshot, so that a run ends by superseding it. The second attempt at a run
is made an hour after the first, the third two hours: whatever does not keep the time of the first shows in the bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World
from tests.proof.doomed import CONCURRENCY, Ended, Job
from tests.proof.forks import ForkServer
from tests.proof.standing import (
    account,
    compared,
    fault_struck,
    litter,
    partial_views,
    published,
    see_to_what_was_put_off,
    told_as_it_stands,
)
from tests.proof.tracing import Call, at_waiting, calls

MEASURED_AT = datetime(2026, 3, 5, tzinfo=UTC)
FORMS: dict[str, Callable[[World], ClusterApp]] = {
    "documented": Sandbox,
    "native": lambda world: NativeSandbox(world, generation="v25", clock=lambda: MEASURED_AT),
}
EARLIER, WORLD = (1, 4), (2, 5)
ATTEMPTS = 3
# The first answer fixes the times of the run.
FIXED = 'after keep ["dialect"] #1'


@dataclass(frozen=True)
class Trial:
    """A run that `ends` befell: how many of them really did, and what was wrong then or in the end."""

    ends: tuple[dict[str, Any], ...]
    struck: int
    troubles: list[str]


@dataclass
class Trials:
    """Places where runs are tried, all alike at first."""

    form: str
    root: Path
    url: str
    app: ClusterApp
    forks: ForkServer
    points: list[str] = field(default_factory=list)
    wholes: list[dict[str, str]] = field(default_factory=list)
    """The published trees: of the earlier run, then of this run, first made so many hours late."""
    accounts: list[dict[str, object]] = field(default_factory=list)
    usual: Counter[str] = field(default_factory=Counter)

    def place(self, name: str = "place") -> Path:
        """A fresh place that holds the earlier run."""
        place = self.root / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.root / "base", place)
        self.app.hits.clear()
        return place

    def attempt(self, place: Path, **job: Any) -> Ended:
        begun = job.pop("begun", lambda process: None)
        return self.forks.attempt(Job(place=str(place), url=self.url, **job), begun)

    def learn(self) -> None:
        """Make the run that nothing interrupts, at each hour at which it may first be made."""
        self.wholes.append(published(self.root / "base"))
        for hours in range(ATTEMPTS):
            place = self.place()
            ended = self.attempt(place, hours=hours, tell_points=not hours)
            assert ended.code == 0, (place / "said").read_text()
            if not hours:
                self.points = (place / "points").read_text().splitlines()
                self.usual = Counter(self.app.hits)
            self.wholes.append(published(place))
            self.accounts.append(account(place))
        assert len({str(each) for each in self.wholes}) == ATTEMPTS + 1
        assert len(set(self.points)) == len(self.points)

    def interrupted(self, *ends: dict[str, Any], mutant: str | None = None) -> Trial:
        """Make an attempt for each of `ends`, which befalls it, then one that comes through."""
        place = self.place()
        kills, troubles, fixed = 0, [], False
        for hours, end in enumerate(ends):
            ended = self.attempt(place, hours=hours, mutant=mutant, **end)
            kills += ended.killed
            if ended.code and not ended.killed:
                troubles.append(f"an attempt ended with {ended.code}: {(place / 'said').read_text()[-400:]}")
            fixed = fixed or (not hours and self._fixes_times(end))
            troubles += partial_views(place, self.wholes[: 2 if fixed else hours + 2])
        last = self.attempt(place, hours=len(ends), mutant=mutant)
        troubles += self.finished(place, last, [0] if fixed else range(len(ends) + 1))
        return Trial(ends, kills, troubles + self.asked_again(kills))

    def failed(self, **fault: Any) -> Trial:
        """Make an attempt that a fault of the disk befalls, then one without, and what the next run is to do."""
        place = self.place()
        ended = self.attempt(place, **fault)
        troubles = partial_views(place, self.wholes[:2]) + told_as_it_stands(place, ended.code)
        last = self.attempt(place, hours=1)
        pardoned = see_to_what_was_put_off(place)
        # While an answer cannot be kept, those in flight come in and are lost as well.
        troubles += self.finished(place, last, range(2), pardoned) + self.asked_again(2)
        return Trial(({**fault, "code": ended.code},), int(fault_struck(place)), troubles)

    def _fixes_times(self, end: dict[str, Any]) -> bool:
        """Whether a first attempt that ends so had fixed the times of the run; until then it works alone."""
        point = end.get("die_at", end.get("wait_at"))
        reached = self.points.index(point) if point else end["die_after"] - 1
        return bool(reached >= self.points.index(FIXED))

    def finished(self, place: Path, last: Ended, hours: Sequence[int], pardoned: str = "") -> list[str]:
        """What is wrong after the attempt that came through, for a run whose times were fixed at one of the hours."""
        if last.code:
            return [f"the last attempt ended with {last.code}: {(place / 'said').read_text()[-400:]}"]
        tree, told = published(place), account(place)
        differences = (
            compared(tree, self.wholes[hour + 1], pardoned) + compared(told, self.accounts[hour]) for hour in hours
        )
        return min(differences, key=len) + litter(place)

    def asked_again(self, kills: int) -> list[str]:
        """Objects that the cluster was asked for more often than what was in flight at each kill accounts for."""
        extra = _objects(self.app.hits - self.usual)
        most = CONCURRENCY * kills
        return [f"{extra} objects were asked for again, at most {most} were in flight"] if extra > most else []


def _objects(extra: Counter[str]) -> int:
    """How many objects these requests were about."""
    paths = Counter({path.removeprefix("/api/v2/").rstrip("/"): count for path, count in extra.items()})
    for path in ("health", "login", "logout"):
        del paths[path]
    # To find out what a server speaks, and to list a database's tables, takes more than one request.
    detection = max(paths.pop(path, 0) for path in ("databases", "database_metadata"))
    in_bulk = paths.pop("table_metadata", 0)
    lists = sum(paths.pop(path) for path in list(paths) if path.endswith("/tables"))
    return detection + max(in_bulk, lists) + paths.total()


@contextmanager
def trials(form: str, root: Path) -> Iterator[Trials]:
    """Trials against a cluster of this form."""
    with ExitStack() as running:
        forks = running.enter_context(ForkServer())
        _publish_earlier(form, root, forks)
        app = FORMS[form](World(*WORLD))
        server = running.enter_context(SandboxServer(app))
        made = Trials(form, root, server.url, app, forks)
        made.learn()
        yield made


def _publish_earlier(form: str, root: Path, forks: ForkServer) -> None:
    base = root / "base"
    base.mkdir()
    with SandboxServer(FORMS[form](World(*EARLIER))) as server:
        ended = forks.attempt(Job(place=str(base), url=server.url, run_id="r0", hours=-1))
    assert ended.code == 0, (base / "said").read_text()
    for name in ("said", "report.json"):
        (base / name).unlink()


def traced_calls(cluster: Trials, names: str, of: str) -> list[Call]:
    """The calls of these names that a run which nothing interrupts makes on files with `of` in their paths."""
    place = cluster.place()
    with at_waiting(place, "-e", f"trace=write,{names}") as begun:
        assert cluster.attempt(place, wait_at=cluster.points[0], tell_points=True, begun=begun).code == 0
    return [call for call in calls(place, of) if call.name in names.split(",")]
