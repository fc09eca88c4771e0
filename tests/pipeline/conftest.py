"""What the tests of the delivering half share: batches, sinks in lanes, and plugins that offer them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pytest

from crdbexport import Outcome, Run, Sink, SinkConfig, hookimpl
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.lane import Lane, LaneSink
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.spool import Spool
from crdbexport.plugin_manager import SinkPluginManager
from crdbexport.records import STREAMS, schemas
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World
from crdbexport.sinks.base import Batch

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PATIENCE_SECONDS = 5.0


@pytest.fixture
def envelope() -> Envelope:
    return Envelope("c1", "r1", NOON, NOON)


@pytest.fixture
def run(envelope: Envelope) -> Run:
    return Run("c1", "r1", NOON, NOON, "mine", schemas(STREAMS))


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(complete=True, gaps=(), coverage={}, rows={})


class Grants(Protocol):
    def __call__(self, *grantees: str) -> pa.RecordBatch: ...


@pytest.fixture
def grants(envelope: Envelope) -> Grants:
    """A record batch of `database_grants`, one row a grantee."""

    def made(*grantees: str) -> pa.RecordBatch:
        batcher = Batcher(envelope)
        assert not list(batcher.add("database_grants", [("bank", each, "CONNECT") for each in grantees]))
        ((_, data),) = batcher.finish()
        return data

    return made


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def filled_spool(tmp_path: Path, grants: Grants) -> Spool:
    """A sealed spool of three batches: ann and bob, cid, dan."""
    spool = Spool(tmp_path / "filled_spool")
    for grantees in (("ann", "bob"), ("cid",), ("dan",)):
        spool.append("database_grants", grants(*grantees))
    spool.seal()
    return spool


class Telling(Sink):
    """A sink that notes each call, and what it was called with: in `told`, which all of one class share."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        name: str = "there"

    told: ClassVar[list[Any]]

    def preflight(self) -> None:
        self.told.append("preflight")

    def open(self) -> None:
        self.told.append("open")

    def write(self, batch: Batch) -> None:
        self.told.append([row["grantee"] for row in batch.rows()] if "grantee" in batch.data.schema.names else "write")

    def commit(self) -> None:
        self.told.append("commit")

    def abort(self, error: BaseException) -> None:
        self.told.append(("abort", type(error).__name__))


@pytest.fixture
def telling() -> type[Telling]:
    """A fresh class, so that no test hears of another's calls."""

    class Fresh(Telling):
        told: ClassVar[list[Any]] = []

    return Fresh


class Nobody:
    """Plugins that observe nothing."""

    def observers(self, hook: str) -> list[tuple[Any, Callable[..., Any]]]:
        return []


class MakeLane(Protocol):
    def __call__(self, kind: type[Sink], **options: Any) -> Lane: ...


@pytest.fixture
def make_lane(run: Run, filled_spool: Spool, tmp_path: Path) -> Iterator[MakeLane]:
    """Lanes that read the filled spool; options: `name`, `observers`, `spool`, `strict`, and those of the sink."""
    lanes: list[Lane] = []

    def made(kind: type[Sink], name: str = "mine", **options: Any) -> Lane:
        observers = options.pop("observers", None) or Observers(Nobody())
        spool, strict = options.pop("spool", filled_spool), options.pop("strict", False)
        sink = kind(kind.Config(**options))
        hooks = SinkPluginManager(sink, f"{name} (plugin 1.0)").hook
        letters = DeadLetters(tmp_path / "dead_letters" / f"{name}.jsonl", name)
        lane_sink = LaneSink(name, "type", sink.shown_target(), "plugin 1.0", sink, hooks)
        lane = Lane(lane_sink, run, spool, letters, observers, strict=strict)
        lanes.append(lane)
        return lane

    yield made
    for lane in lanes:
        lane.dismiss()


class Deliver(Protocol):
    def __call__(self, kind: type[Sink], **options: Any) -> Lane: ...


@pytest.fixture
def deliver(make_lane: MakeLane, outcome: Outcome) -> Deliver:
    """A lane that has delivered the filled spool to its end, whatever that was."""

    def delivered(kind: type[Sink], **options: Any) -> Lane:
        lane = make_lane(kind, **options)
        lane.check()
        lane.begin(lambda: outcome)
        assert lane.ended.wait(PATIENCE_SECONDS)
        return lane

    return delivered


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits for what another thread is about to do."""

    def wait(met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not met():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    return wait


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging sink waits for; opened when the test is over, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


class Offering(Protocol):
    def __call__(self, *, transforms: dict[str, Any] | None = None, **sinks: type[Sink]) -> dict[str, Any]: ...


@pytest.fixture
def offering() -> Offering:
    """What `export(..., call=...)` needs to know these sinks and transforms by name, from the plugin `mine`."""

    def offered(*, transforms: dict[str, Any] | None = None, **sinks: type[Sink]) -> dict[str, Any]:
        class Mine:
            @hookimpl
            def crdbexport_register_sinks(self, register: Callable[[str, type[Sink]], None]) -> None:
                for name, kind in sinks.items():
                    register(name, kind)

            @hookimpl
            def crdbexport_register_transforms(self, register: Callable[[str, Any], None]) -> None:
                for name, kind in (transforms or {}).items():
                    register(name, kind)

        return {"plugins": [("mine", Mine())]}

    return offered


@pytest.fixture
def app() -> Sandbox:
    """A small cluster: one database of two tables, so that a run takes nine requests."""
    return Sandbox(World(databases=1, tables=2))


@pytest.fixture
def url(app: Sandbox, serve: Callable[[Sandbox], str]) -> str:
    return serve(app)
