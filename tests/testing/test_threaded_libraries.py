"""A sink on a library with threads of its own is killed as any other, though this process has used the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crdbexport import Receipt
from crdbexport.testing import runner
from crdbexport.testing.runner import CHECKS, try_check
from tests.conftest import Ran
from tests.testing.good_sinks import GoodConformance, GoodSink

CRASHES = {"crash_while_writing", "crash_before_commit", "crash_in_commit", "crash_while_replacing", "disk_full"}
# A fork has the pool, which takes its threads for idle ones, and not the threads: it would wait forever.
POOL = ThreadPoolExecutor(1)


class OnAPool(GoodSink):
    """Does its work on threads that last as long as the process."""

    def commit(self) -> Receipt:
        POOL.submit(self.document).result()
        return super().commit()


class OnAPoolConformance(GoodConformance):
    sink = OnAPool
    crash_points: ClassVar[int] = 2
    patience_seconds: ClassVar[float] = 5.0


@pytest.mark.slow
@pytest.mark.parametrize("check", [each for each in CHECKS if each.name in CRASHES], ids=lambda each: each.name)
def test_its_processes_are_killed_and_do_not_hang(check: Any, tmp_path: Path) -> None:
    assert POOL.submit(lambda: 1).result() == 1
    try_check(check, OnAPoolConformance(), tmp_path)


ONE_FILE = """
from concurrent.futures import ThreadPoolExecutor

from crdbexport import hookimpl
from tests.testing.good_sinks import GoodConformance, GoodSink

POOL = ThreadPoolExecutor(1)


class Pooled(GoodSink):
    conformance = ":PooledConformance"

    def commit(self):
        POOL.submit(self.document).result()
        return super().commit()


class PooledConformance(GoodConformance):
    sink = Pooled
    crash_points = 2
    patience_seconds = 5.0


@hookimpl
def crdbexport_register_sinks(register):
    register("pooled", Pooled)
"""


@pytest.mark.slow
def test_so_are_those_of_a_plugin_of_one_file_with_the_options_of_the_command_line(
    run_cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHECKS", tuple(each for each in CHECKS if each.name in CRASHES))
    plugin = tmp_path / "pooled.py"
    plugin.write_text(ONE_FILE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ["--plugin", str(plugin), "--target", str(elsewhere), "--option", "timeout_seconds=4", "--json"]
    ran = run_cli("plugins", "conformance", "pooled", *options)
    assert {each["name"]: each["verdict"] for each in json.loads(ran.out)["checks"]} == dict.fromkeys(CRASHES, "passed")
    assert ran.exit_code == 0
    assert sorted(tmp_path.iterdir()) == [elsewhere, plugin]
