"""A cluster that owes nothing to the package under test, and one full export of it that many tests look at."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import crdbexport
from crdbexport import ExportConfig, RunReport
from crdbexport.config import Secret
from crdbexport.retry import RetryPolicy
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.world import World

HERE = Path(__file__).parent
NOW = datetime(2026, 3, 5, 4, 5, 6, 123456, UTC)
DAY = datetime(2026, 3, 5, tzinfo=UTC)
CLUSTER, RUN_ID = "prod/eu", "nightly.1"
CANARY = "s3cret-canary"


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"end_to_end_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Exported:
    """A finished export: what it published, what it told, and what it should have published."""

    lake: Path
    lines: Path
    state: Path
    report: RunReport
    server: Any
    expected: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """The whole independent cluster, exported into Parquet and JSON Lines at once."""
    world = _loaded("independent_world")
    wire = world.make_world()
    place = tmp_path_factory.mktemp("exported")
    with _loaded("independent_server").IndependentServer(wire, "exporter", CANARY) as server:
        config = ExportConfig(
            url=(server.url,),
            cluster=CLUSTER,
            username="exporter",
            password=Secret(CANARY),
            run_id=RUN_ID,
            state_dir=place / "state",
            sinks={
                "lake": {"type": "parquet", "target": str(place / "lake")},
                "lines": {"type": "jsonl", "target": str(place / "lines")},
            },
        )
        report = crdbexport.export(config, clock=lambda: NOW)
    envelope = {"cluster": CLUSTER, "run_id": RUN_ID, "logical_time": DAY, "extracted_at": NOW}
    expected = world.expected_records(wire, envelope)
    yield Exported(place / "lake", place / "lines", place / "state", report, server, expected)


@pytest.fixture
def faulty(serve: Callable[[Sandbox], str]) -> Callable[..., str]:
    """Serves a small sandbox in which what the patterns match goes wrong; answers the URL."""

    def start(**faults: Status | Body) -> str:
        paths = {"health": "/api/v2/health/?", "databases": "/api/v2/databases/?", "everything": ".*"}
        rules = [Rule(paths[name], action) for name, action in faults.items()]
        return serve(Sandbox(World(1, 2), password=CANARY, faults=Faults(rules=rules)))

    return start


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, without the waits in between."""
    policy = functools.partial(RetryPolicy, base_seconds=0.001)
    monkeypatch.setattr("crdbexport.cluster.connect.RetryPolicy", policy)


AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@pytest.fixture
def enlarge() -> Callable[[Path, int], None]:
    """Gives a small disk so many KiB in all."""

    def remount(place: Path, kibibytes: int) -> None:
        subprocess.run([*AS_ROOT, "mount", "-o", f"remount,size={kibibytes}k", str(place)], check=True, timeout=10)

    return remount


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 16 KiB left on it, beside 304 KiB of `ballast`."""
    place = tmp_path / "small_disk"
    place.mkdir()
    options = f"size=320k,mode=777,uid={os.geteuid()}"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, timeout=10)
    try:
        (place / "ballast").write_bytes(bytes(304 * 1024))
        yield place
    finally:
        subprocess.run([*AS_ROOT, "umount", "--lazy", str(place)], check=True, timeout=10)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Where commands publish; it does not exist yet."""
    return tmp_path / "lake"


@pytest.fixture
def refused(run_cli: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail: in one or two lines, without a traceback, and without a word of the secret."""

    def run(exit_code: int, *arguments: str) -> str:
        ran = run_cli(*arguments)
        reason, _, resume = ran.err.partition("run it again with:")
        assert (ran.exit_code, ran.out) == (exit_code, "")
        assert 1 <= reason.count("\n") <= 2
        assert bool(resume) == (exit_code in (5, 130, 143))
        assert "Traceback" not in ran.err
        assert CANARY not in ran.err
        assert not published(tmp_path)
        assert not [path for path in files(tmp_path) if CANARY.encode() in path.read_bytes()]
        return str(reason)

    return run


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def published(root: Path) -> list[Path]:
    """Everything that says of itself that it is whole: manifests, and files where readers look."""
    return [path for path in files(root) if path.parent.name == "_manifests" or path.parent.name.startswith("date=")]


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, lake: Path) -> Callable[..., list[str]]:
    """The command line of an ordinary export from `url` into `lake`; the password is in the environment."""
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", CANARY)

    def build(url: str, *more: str, sink: str = f"lake=parquet:{lake}") -> list[str]:
        sinks = ["--sink", sink] if sink else []
        return ["export", "--url", url, "--cluster", "c1", "--username", "demo", *sinks, *more]

    return build
