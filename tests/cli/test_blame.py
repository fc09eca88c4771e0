"""An error that nobody foresaw is told as the fault of the plugin whose code it came from, or as a bug here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crdbexport.errors import PluginError
from tests.canaries import PASSWORD
from tests.conftest import Ran

Run = Callable[..., Ran]

# The options are made by the plugin's own code, before anything guards it.
FAILING = """
import os

from crdbexport import Sink, SinkConfig, hookimpl


class Failing(Sink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        def __post_init__(self):
            raise LookupError("no canary named " + os.environ.get("CRDBEXPORT_PASSWORD", ""))

    def write(self, batch): ...


@hookimpl
def crdbexport_register_sinks(register):
    register("failing", Failing)
"""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installs a plugin whose options cannot be made."""
    site = tmp_path / "site"
    metadata = site / "crdbexport_failing-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: crdbexport-failing\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[crdbexport]\nfailing = failing_plugin_of_blame\n")
    (site / "failing_plugin_of_blame.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("failing")
def test_a_plugin_on_the_traceback_is_named_with_the_way_to_do_without(
    run_cli: Run, cluster: list[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    ran = run_cli("export", *cluster, "--sink", "failing", "--report", str(report))
    assert ran.exit_code == 2
    assert ran.err == (
        "error: plugin failing (crdbexport-failing 1.2) failed: LookupError: no canary named ***; leave it out with "
        "`CRDBEXPORT_BLOCK_PLUGINS=failing crdbexport export ...`, or report it to its authors with the traceback "
        "that -v shows\n"
    )
    assert json.loads(report.read_text())["exit_code"] == 2


@pytest.mark.usefixtures("failing")
def test_the_way_out_works_and_keeps_what_is_blocked(
    run_cli: Run, cluster: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "other")
    told = run_cli("check", *cluster, "--sink", "failing").err
    assert "`CRDBEXPORT_BLOCK_PLUGINS=other,failing crdbexport check ...`" in told
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "other,failing")
    left_out = run_cli("check", *cluster, "--sink", "failing")
    assert left_out.exit_code == 2
    assert "plugin failing (crdbexport-failing 1.2) is blocked" in left_out.err


def test_a_plugin_of_one_file_is_named_by_its_file(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    path = tmp_path / "my_sink.py"
    path.write_text(FAILING)
    ran = run_cli("export", *cluster, "--sink", "failing", "--plugin", str(path))
    assert ran.exit_code == 2
    assert "plugin my_sink (my_sink (file)) failed: LookupError" in ran.err
    assert "CRDBEXPORT_BLOCK_PLUGINS=my_sink crdbexport export ..." in ran.err


@pytest.mark.usefixtures("failing")
def test_an_error_of_this_package_is_a_bug_of_it_whatever_is_installed(
    run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of a kind")

    monkeypatch.setattr("crdbexport.cli.streams._described", broken)
    ran = run_cli("streams", "--json")
    assert ran.exit_code == 1
    assert ran.err == (
        "error: a bug in crdbexport: ZeroDivisionError: of a kind; run it with -v for the traceback, and report that "
        "with the output of `crdbexport --version` and `crdbexport plugins list`; look through it first for names of "
        "yours\n"
    )


@pytest.mark.usefixtures("failing")
def test_a_plugin_is_found_behind_what_its_error_led_to() -> None:
    from crdbexport.blame import culprit, exit_code_of
    from crdbexport.plugin_manager import load_plugins

    kind = load_plugins().sink("failing").kind
    try:
        try:
            kind.Config()
        except LookupError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        found, code = culprit(error), exit_code_of(error)
    assert (found and found.label, code) == ("crdbexport-failing 1.2", 2)
    assert exit_code_of(PluginError("x")) == 2
    assert PASSWORD not in str(found)
