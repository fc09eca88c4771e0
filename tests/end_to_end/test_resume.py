"""Real export commands that are killed, stopped, or left without a server; the same command then finishes the run.

What comes of it equals what an uninterrupted run gives, byte for byte, although later attempts have another clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RunReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.server import SandboxServer
from crdbexport.sandbox.world import World
from tests.sinks.webhook_receiver import SECRET, Receiver, receiving

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
WORLD = World(3, 12, views=2)
CONCURRENCY = 4
PATIENCE_SECONDS = 40.0
SETTLED_SECONDS = 0.3
PUBLISHED = ("lake", "lines")
NOT_OF_THE_WALK = ("health", "login", "logout")
FORMS: dict[str, Callable[[], ClusterApp]] = {
    "documented": lambda: Sandbox(WORLD),
    "v22": lambda: NativeSandbox(WORLD, generation="v22"),
    "v25": lambda: NativeSandbox(WORLD, generation="v25", clock=lambda: NOW),
}

# The command line as it is, but for the clock, small batches, and waits between attempts that are short.
CHILD = """
import functools, os, signal, sys
from datetime import datetime
import crdbexport.attempt, crdbexport.cluster.connect, crdbexport.runner
from crdbexport.pipeline import answers, spool, state
from crdbexport.cli import main

_, now, dies_at, *arguments = sys.argv
moment = datetime.fromisoformat(now)
crdbexport.runner.export = functools.partial(crdbexport.runner.export, clock=lambda: moment)
crdbexport.attempt.Batcher = functools.partial(crdbexport.attempt.Batcher, batch_rows=40)
policy = crdbexport.cluster.connect.RetryPolicy
crdbexport.cluster.connect.RetryPolicy = functools.partial(policy, base_seconds=0.01)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def plant(owner, name, when):
    right = getattr(owner, name)
    def planted(*args, **kwargs):
        if when == "before":
            die()
        answer = right(*args, **kwargs)
        die()
        return answer
    setattr(owner, name, planted)

if dies_at:
    where, name, when = dies_at.split()
    plant({"Answers": answers.Answers, "Spool": spool.Spool, "RunState": state.RunState}[where], name, when)
sys.argv = ["crdbexport", *arguments]
main()
"""


class Place:
    """Where one run works: a cluster, sinks, a state directory."""

    def __init__(self, path: Path, app: ClusterApp, url: str, hook: Receiver | None = None) -> None:
        self.path, self.app, self.url, self.hook = path, app, url, hook
        self.attempts = 0
        path.mkdir()

    def command(self, *more: str, dies_at: str = "") -> list[str]:
        sinks = [f"lake=parquet:{self.path / 'lake'}", f"lines=jsonl:{self.path / 'lines'}"]
        sinks += [f"hook=webhook:{self.hook.url}"] if self.hook else []
        now = NOW + timedelta(days=self.attempts)
        return [
            *(sys.executable, "-c", CHILD, now.isoformat(), dies_at, "export"),
            *("--url", self.url, "--cluster", "c1", "--username", "demo", "--concurrency", str(CONCURRENCY)),
            *("--run-id", "r1", "--state-dir", str(self.path / "state"), "--report", str(self.path / "report.json")),
            *(option for sink in sinks for option in ("--sink", sink)),
            *more,
        ]

    def start(self, *more: str, dies_at: str = "") -> subprocess.Popen[str]:
        command = self.command(*more, dies_at=dies_at)
        self.attempts += 1
        variables = {**os.environ, "CRDBEXPORT_PASSWORD": "demo", "CRDBEXPORT_WEBHOOK_SECRET": SECRET}
        return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)

    def run(self, *more: str, dies_at: str = "") -> tuple[int, str]:
        process = self.start(*more, dies_at=dies_at)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, said

    def stop(self, number: int, *, once: Callable[[], bool]) -> tuple[int, str]:
        """Start the command and send it a signal once it has come so far."""
        process = self.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not once():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        self.settle()
        return process.returncode, said

    def settle(self) -> None:
        """Wait until the cluster has counted what a process that is gone had still asked for."""
        before = -1
        while before != (now := self.app.hits.total()):
            before = now
            time.sleep(SETTLED_SECONDS)

    def tree(self) -> dict[str, str]:
        """What readers see: every file with its checksum."""
        files = [path for name in PUBLISHED for path in (self.path / name).rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.path)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if "_staging" not in path.parts
        }

    def asked(self) -> Counter[str]:
        """The requests of the walk by path."""
        return Counter({path: n for path, n in self.app.hits.items() if path.split("/")[3] not in NOT_OF_THE_WALK})

    def report(self) -> RunReport:
        return RunReport.from_json((self.path / "report.json").read_bytes())


class Slow:
    """Makes a cluster take its time for each answer, so that a run can be caught in its middle."""

    def __init__(self, app: ClusterApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(self.seconds)
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """An uninterrupted run of each form, made once."""
    made: dict[str, Place] = {}
    with ExitStack() as running:

        def of(form: str) -> Place:
            if form not in made:
                app, hook = FORMS[form](), running.enter_context(receiving(Receiver()))
                url = running.enter_context(SandboxServer(app)).url
                made[form] = Place(tmp_path_factory.mktemp("reference") / form, app, url, hook)
                exit_code, said = made[form].run("--allow-gaps", "server_error", "--allow-gaps", "view")
                assert exit_code == 0, said
                assert len(made[form].tree()) == 2 * 7
            return made[form]

        yield of


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """A fresh place with a cluster of that form."""
    with ExitStack() as running:

        def make(form: str, *, seconds: float = 0.0) -> Place:
            app, hook = FORMS[form](), running.enter_context(receiving(Receiver()))
            url = running.enter_context(SandboxServer(Slow(app, seconds))).url
            return Place(tmp_path / "place", app, url, hook)

        yield make


FINISH = ("--allow-gaps", "server_error", "--allow-gaps", "view")


def asked_again(place: Place, reference: Place) -> int:
    """Requests beyond those of an uninterrupted run."""
    return (place.asked() - reference.asked()).total()


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_is_killed_while_it_reads_is_finished_as_if_it_had_not_been(
    place: Callable[..., Place], reference: Callable[[str], Place], form: str
) -> None:
    wanted = reference(form)
    here = place(form, seconds=0.01)
    requests = wanted.asked().total()
    for share in (0.1, 0.5, 0.8):
        exit_code, _ = here.stop(signal.SIGKILL, once=lambda share=share: here.asked().total() > share * requests)
        assert exit_code == -signal.SIGKILL
        assert not [path for path in here.tree() if "_manifests" in path]

    exit_code, said = here.run(*FINISH)

    assert exit_code == 0, said
    assert here.tree() == wanted.tree()
    assert asked_again(here, wanted) <= 3 * CONCURRENCY
    told, expected = here.report(), wanted.report()
    assert (told.streams, told.gaps, told.objects) == (expected.streams, expected.gaps, expected.objects)
    assert told.logical_time == expected.logical_time
    assert told.requests.total < requests


MOMENTS = {
    "while it syncs the spool": "Spool sync before",
    "when the spool is synced": "Spool sync after",
    "when it is about to conclude": "RunState keep_extraction before",
    "when it has concluded but for clearing up": "Answers forget before",
    "when it has concluded": "RunState keep_extraction after",
    "when the spool is sealed": "Spool seal after",
    "when a sink has committed, which nobody noted": "RunState keep_committed before",
    "when a sink has committed": "RunState keep_committed after",
    "when it is about to report": "RunState keep_report before",
    "when it has reported": "RunState keep_report after",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_at_its_end_is_finished_as_if_it_had_not_been(
    place: Callable[..., Place], reference: Callable[[str], Place], moment: str
) -> None:
    wanted = reference("documented")
    here = place("documented")
    exit_code, said = here.run(*FINISH, dies_at=MOMENTS[moment])
    assert exit_code == -signal.SIGKILL, said
    asked, published = here.asked(), here.tree()

    exit_code, said = here.run(*FINISH)

    assert exit_code == 0, said
    assert here.tree() == wanted.tree()
    assert published.items() <= here.tree().items()
    assert here.asked() == asked == wanted.asked()
    assert [(sink.name, sink.status) for sink in sorted(here.report().sinks, key=lambda sink: sink.name)] == [
        ("hook", "committed"),
        ("lake", "committed"),
        ("lines", "committed"),
    ]
    assert here.report().streams == wanted.report().streams
    assert not (here.path / "state" / "runs" / "c1.r1" / "spool").exists()
    # And once more: nothing is left to do.
    messages = len(here.hook.ids) if here.hook else 0
    assert here.run(*FINISH)[0] == 0
    assert (len(here.hook.ids) if here.hook else 0, here.asked()) == (messages, asked)


def test_a_receiver_gets_each_message_under_one_id_whenever_the_run_was_killed(
    place: Callable[..., Place], reference: Callable[[str], Place]
) -> None:
    wanted, here = reference("documented"), place("documented", seconds=0.01)
    assert wanted.hook
    assert here.hook
    sent = here.hook.ids
    here.stop(signal.SIGKILL, once=lambda: len(sent) > 2)
    here.run(*FINISH, dies_at="RunState keep_extraction after")
    here.run(*FINISH, dies_at="RunState keep_committed after")

    assert here.run(*FINISH)[0] == 0

    assert set(sent) == set(wanted.hook.ids)
    assert len(sent) > len(wanted.hook.ids)
    bodies = set(zip(sent, here.hook.bodies, strict=True))
    assert bodies == set(zip(wanted.hook.ids, wanted.hook.bodies, strict=True))


def test_a_sink_that_had_committed_is_not_fed_again(
    place: Callable[..., Place], reference: Callable[[str], Place]
) -> None:
    here = place("documented")
    assert here.hook
    committed: set[str] = set()
    for _ in range(2):
        assert here.run(*FINISH, dies_at="RunState keep_committed after")[0] == -signal.SIGKILL
        listed = subprocess.run(
            [sys.executable, "-m", "crdbexport", "runs", "show", "r1", "--json", "--state-dir", here.path / "state"],
            capture_output=True,
            check=True,
        )
        now = {name for name, status in json.loads(listed.stdout)["sinks"].items() if status == "committed"}
        assert committed < now
        committed = now
        if "hook" in committed:
            assert len(here.hook.ids) == len(set(here.hook.ids))
    # One that was publishing when it was killed may have to finish that.
    theirs = [path for path in here.tree() if Path(path).parts[0] in committed]
    written = {path: (here.path / path).stat().st_mtime_ns for path in theirs}
    messages = len(here.hook.ids)

    assert here.run(*FINISH)[0] == 0

    assert all((here.path / path).stat().st_mtime_ns == each for path, each in written.items())
    if "hook" in committed:
        assert len(here.hook.ids) == messages
    assert here.tree() == reference("documented").tree()


@pytest.mark.parametrize(
    ("form", "number", "exit_code"), [("v22", signal.SIGINT, 130), ("v25", signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_run_that_is_stopped_goes_on_where_it_stopped_and_counts_its_requests(
    place: Callable[..., Place], reference: Callable[[str], Place], form: str, number: int, exit_code: int
) -> None:
    wanted, here = reference(form), place(form, seconds=0.01)
    half = wanted.asked().total() // 2
    ended, said = here.stop(number, once=lambda: here.asked().total() > half)
    assert (ended, here.report().status) == (exit_code, "interrupted")
    assert "--run-id r1" in said.partition("run it again with:")[2]

    ended, said = here.run(*FINISH)

    assert ended == 0, said
    assert here.tree() == wanted.tree()
    assert asked_again(here, wanted) <= CONCURRENCY
    assert 0 <= here.report().requests.total - here.app.hits.total() <= CONCURRENCY


@pytest.mark.parametrize("form", FORMS)
def test_a_run_whose_cluster_dies_in_its_middle_goes_on_once_it_is_back(
    place: Callable[..., Place], reference: Callable[[str], Place], form: str
) -> None:
    wanted, here = reference(form), place(form)
    dying = Dying(here.app, after=wanted.asked().total() * 2 // 3)
    with SandboxServer(dying) as server:
        well, here.url = here.url, server.url
        exit_code, said = here.run(*FINISH)
    assert (exit_code, here.report().status) == (5, "failed"), said
    assert dying.refused
    assert here.tree() == {}
    here.url = well
    asked = here.asked()

    exit_code, said = here.run(*FINISH)

    assert exit_code == 0, said
    assert sorted(map(repr, rows(here))) == sorted(map(repr, rows(wanted)))
    assert here.report().gaps == wanted.report().gaps
    # Of what was answered nothing is asked again, be it on a second look.
    assert asked_again(here, wanted) <= CONCURRENCY
    assert (here.asked() - asked).total() < wanted.asked().total() / 2 + CONCURRENCY


def test_a_run_that_was_begun_with_other_options_is_refused_by_their_names(place: Callable[..., Place]) -> None:
    here = place("documented", seconds=0.01)
    here.stop(signal.SIGKILL, once=lambda: here.asked().total() > 10)
    asked = here.asked()

    exit_code, said = here.run("--stream", "tables", "--exclude-database", "bank")

    assert (exit_code, here.asked()) == (2, asked)
    assert 'run "r1" was read with another exclude_database and another stream; give the same options' in said
    assert here.run(*FINISH)[0] == 0


class Dying:
    """A cluster that answers 503 to everything once it has answered so many requests."""

    def __init__(self, app: ClusterApp, after: int) -> None:
        self.app, self.left, self.refused = app, after, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.left -= 1
        if self.left >= 0:
            await self.app(scope, receive, send)
            return
        self.refused += 1
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def rows(place: Place) -> list[Any]:
    files = sorted((place.path / "lines").glob("*/date=*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
