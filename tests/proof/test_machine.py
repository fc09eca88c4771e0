"""A cluster lives on; runs begin, are cut short, go on: readers find whole runs, each as its cluster told it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from crdbexport import SinkError
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sinks import publishing, recovery
from crdbexport.sinks.jsonl import JsonLinesSink
from crdbexport.sinks.parquet import ParquetSink
from tests.proof.attempts import SINKS, Attempts, Command
from tests.proof.conftest import Part
from tests.proof.crash_states import in_memory
from tests.proof.forks import ForkServer
from tests.proof.living import LivingCluster, LivingDatabase, LivingTable
from tests.proof.recording import replaced

pytestmark = [pytest.mark.proof, pytest.mark.timeout(7_200)]

# What is killed is always a run of the first.
DAYS = ("2026-03-05", "2026-03-06")
SINK_CLASSES = {"lake": ParquetSink, "lines": JsonLinesSink}

names = st.sampled_from(["one", "two", "three", "four", "five"])
sinks = st.sampled_from([SINKS, SINKS, ("lake",), ("lines",)])
commands = st.builds(Command, st.sampled_from(DAYS), names, sinks, st.booleans(), st.booleans())
choices = st.randoms(use_true_random=False)
database_names = st.sampled_from(["bank", "Größe", "a b", "x%2Fy"])
table_names = st.sampled_from(["users", "orders", 'q"t', "a.b"])
users = st.sampled_from(["ann", "bob"])
privileges = st.sampled_from(["SELECT", "ALL"])
requests = st.integers(2, 16)


class Life(RuleBasedStateMachine):
    """One cluster, which changes between the attempts at runs of it."""

    cluster: ClassVar[LivingCluster]
    url: ClassVar[str]
    forks: ClassVar[ForkServer]
    memory: ClassVar[Path]
    done: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.cluster.renew()
        place = Path(tempfile.mkdtemp(dir=self.memory))
        self.attempts = Attempts(place, self.cluster, self.url, self.forks, self.done)

    def teardown(self) -> None:
        shutil.rmtree(self.attempts.place)
        self.done["lives"] += 1

    @property
    def databases(self) -> dict[str, LivingDatabase]:
        return self.cluster.world.databases

    # -- the cluster lives

    @initialize(names=st.lists(database_names, min_size=1, max_size=3, unique=True), table=table_names)
    def begin(self, names: list[str], table: str) -> None:
        for name in names:
            self.create_database(name)
            self.create_table(name, table, 7)

    @rule(name=database_names)
    def create_database(self, name: str) -> None:
        self.databases.setdefault(name, LivingDatabase(self.cluster.world.new_id()))

    @precondition(lambda self: len(self.databases) > 1)
    @rule(choose=choices)
    def drop_database(self, choose: Any) -> None:
        del self.databases[choose.choice(list(self.databases))]

    @rule(choose=choices, name=database_names)
    def rename_database(self, choose: Any, name: str) -> None:
        if name not in self.databases:
            self.databases[name] = self.databases.pop(choose.choice(list(self.databases)))

    @rule(database=database_names, name=table_names, size=st.sampled_from([0, 7, 2**60 + 1]))
    def create_table(self, database: str, name: str, size: int) -> None:
        if database in self.databases:
            self.databases[database].tables.setdefault(name, LivingTable(self.cluster.world.new_id(), size))

    @rule(choose=choices, name=table_names, drop=st.booleans())
    def rename_or_drop_table(self, choose: Any, name: str, drop: bool) -> None:
        tables = choose.choice(list(self.databases.values())).tables
        if tables and name not in tables:
            table = tables.pop(choose.choice(list(tables)))
            if not drop:
                tables[name] = table

    @rule(choose=choices, user=users, privilege=privileges, revoke=st.booleans())
    def grant_or_revoke(self, choose: Any, user: str, privilege: str, revoke: bool) -> None:
        database = choose.choice(list(self.databases.values()))
        held = choose.choice([database, *database.tables.values()]).grants.setdefault(user, set())
        held.discard(privilege) if revoke else held.add(privilege)

    @rule(choose=choices, size=st.integers(0, 2**60), columns=st.integers(1, 3))
    def grow(self, choose: Any, size: int, columns: int) -> None:
        for table in choose.choice(list(self.databases.values())).tables.values():
            table.size_bytes, table.columns = size, columns

    # -- runs

    @rule(command=commands)
    def export(self, command: Command) -> None:
        self.attempts.export(command)

    @rule(command=commands, path=st.sampled_from(["/grants", "/tables", "/bank", "/users"]))
    def export_with_a_gap(self, command: Command, path: str) -> None:
        self.attempts.export(command, forbidden=path)

    @rule(command=commands, at=requests)
    def export_from_a_server_that_dies(self, command: Command, at: int) -> None:
        self.attempts.export(command, dead_from=at)

    @rule(command=commands, at=requests)
    def export_and_stop(self, command: Command, at: int) -> None:
        self.attempts.export(command, stop_at=at)

    @rule(command=commands, sink=st.sampled_from(SINKS), at=st.sampled_from(["open", "write", "commit"]))
    def export_into_a_broken_sink(self, command: Command, sink: str, at: str) -> None:
        with replaced(SINK_CLASSES[sink], at, is_down):
            self.attempts.export(command)

    @rule(name=names, after=st.integers(1, 450))
    def export_and_be_killed(self, name: str, after: int) -> None:
        self.attempts.killed(Command(DAYS[0], name), after)

    @rule(command=commands)
    def export_twice(self, command: Command) -> None:
        report = self.attempts.export(command)
        if report is not None and report.exit_code == 0:
            self.attempts.export_again(command, report)

    @rule()
    def deliver_what_is_owed(self) -> None:
        for run in [run for run in self.attempts.runs.values() if run.is_owed][-1:]:
            self.attempts.deliver(run.command)


def is_down(sink: object) -> None:
    raise SinkError("the target is down")


@contextmanager
def hastened() -> Iterator[None]:
    """Nobody waits for anything, and certificates that nobody asks for are not read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crdbexport.supervision.POLL_SECONDS", 0.002)
        patch.setattr("crdbexport.retry.RetryPolicy.wait_seconds", lambda *_: 0.0)
        patch.setenv("SSL_CERT_FILE", "/dev/null")
        patch.setenv("SSL_CERT_DIR", "/dev/null")
        yield


def live(count: int, steps: int, draw: int) -> Counter[str]:
    """Live so many lives; what was done in them."""
    cluster, done = LivingCluster(), Counter[str]()
    # When a signal strikes is not the same twice, so that shrinking leads nowhere.
    lives = settings(
        max_examples=count,
        stateful_step_count=steps,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with ExitStack() as running:
        memory = running.enter_context(in_memory())
        running.enter_context(hastened())
        forks = running.enter_context(ForkServer())
        url = running.enter_context(SandboxServer(cluster)).url
        shared = {"cluster": cluster, "url": url, "forks": forks, "memory": memory, "done": done}
        run_state_machine_as_test(seed(draw)(type("Life", (Life,), shared)), settings=lives)
    return done


def test_whatever_happens_lakes_hold_whole_runs_as_they_were_read(part: Part, tell: Callable[[str], None]) -> None:
    started = time.monotonic()
    done = live(500, 50, part.seed) if part.whole else live(50, 20, part.seed)
    lives = done.pop("lives")
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(done.items()))
    tell(f"lives of a cluster: {lives:,} lived ({told}), {time.monotonic() - started:.0f} s")
    for expected in ("snapshots read", "killed", "delivered", "exit 0", "exit 3", "exit 5", "exit 143"):
        assert done[expected]


def nothing(*_: object, **__: object) -> None:
    """Not done at all."""


MISTAKES: dict[str, tuple[object, str]] = {
    "worse runs take the place of better ones": (publishing.Publication, "_refuse_to_supersede_better"),
    "the run before is never set aside": (recovery, "set_aside"),
    "staging is never cleared": (publishing, "clear_staging"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_met_in_some_life(mistake: str, part: Part) -> None:
    owner, name = MISTAKES[mistake]
    with replaced(owner, name, nothing), pytest.raises((AssertionError, Flaky)):
        live(50, 20, part.seed)
