"""`crdbexport plugins doctor`: what is wrong with each plugin, found in a process of its own, and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crdbexport
import crdbexport.cli.plugins
from tests.conftest import Ran

Run = Callable[..., Ran]
pytestmark = pytest.mark.slow

FINE = """
from crdbexport import Sink, SinkConfig, hookimpl
{before}


class Fine(Sink):
    {within}
    def write(self, batch): ...


@hookimpl
def crdbexport_register_sinks(register):
    register("{sink}", Fine)
"""


def fine(sink: str, *, before: str = "", within: str = "") -> str:
    return FINE.format(sink=sink, before=before, within=within)


@pytest.fixture
def doctor(
    run_cli: Run, installed: Callable[[str, str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Installs plugins and has them examined; answers the exit code, and each plugin by its name."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{Path(crdbexport.__file__).parents[1]}")

    def run(*options: str, **plugins: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", ",".join([*plugins, "my_sink"] if options else plugins))
        for name, code in plugins.items():
            installed(name, code)
        ran = run_cli("plugins", "doctor", "--json", *options)
        return ran.exit_code, {each["name"]: each for each in json.loads(ran.out)}

    return run


def test_all_is_well(doctor: Callable[..., Any]) -> None:
    code, found = doctor(good=fine("good", before="import time; time.sleep(0.05)"))
    assert code == 0
    assert found["builtin"]["conformance"] == ["jsonl", "parquet", "webhook"]
    good = found["good"]
    assert (good["state"], good["sinks"], good["problems"]) == ("loaded", ["good"], [])
    assert (good["distribution"], good["version"], good["location"]) == ("good", "1.2", "good_plugin")
    assert 50 <= good["import_ms"] < 5000


ILL = {
    "import": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "hooks": (fine("x").replace("register_sinks", "register_sink"), "there is no hook 'crdbexport_register_sink'"),
    "api": (fine("x", within="api_version = 7"), "sink 'x' wants plugin API 7, and this crdbexport has 1"),
    "names": (fine("parquet"), "'parquet' is already offered by crdbexport "),
    "options": (
        fine(
            "x",
            within="class Config(SinkConfig):\n        a: dict[str, int] | list[int] | set[int]\n",
        ),
        "the Config of 'x' cannot be decoded: TypeError: ",
    ),
}


@pytest.mark.parametrize("check", ILL)
def test_what_is_wrong_is_told_with_what_to_do(doctor: Callable[..., Any], check: str) -> None:
    source, told = ILL[check]
    code, found = doctor(ill=source)
    assert code == 3
    assert found["ill"]["state"] == "broken"
    (problem,) = found["ill"]["problems"]
    assert (problem["check"], problem["severity"]) == (check, "error")
    assert problem["problem"].startswith(told)
    assert problem["remedy"]
    assert found["builtin"]["problems"] == []


def test_a_plugin_that_ends_its_process_hurts_nobody(doctor: Callable[..., Any]) -> None:
    code, found = doctor(dead="import os, signal\nprint('noise')\nos.kill(os.getpid(), signal.SIGSEGV)", good=fine("x"))
    assert code == 3
    assert found["dead"]["problems"][0]["problem"] == "it ended the process (killed by SIGSEGV)"
    assert found["good"]["state"] == "loaded"


def test_a_plugin_that_hangs_is_given_up(doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["crdbexport.cli.plugins.doctor"], "PATIENCE_SECONDS", 2.0)
    code, found = doctor(slow="import time\ntime.sleep(60)")
    assert code == 3
    assert found["slow"]["problems"][0]["problem"] == "it did not come back within 2 s"


def test_two_plugins_that_offer_one_name_are_told_of(doctor: Callable[..., Any]) -> None:
    code, found = doctor(aaa=fine("kafka"), bbb=fine("kafka"))
    assert code == 3
    assert (found["aaa"]["state"], found["bbb"]["state"]) == ("loaded", "broken")
    assert found["bbb"]["problems"][0]["problem"] == "'kafka' is already offered by aaa 1.2"


def test_a_conformance_class_that_is_missing_is_a_warning(doctor: Callable[..., Any]) -> None:
    code, found = doctor(good=fine("good", within='conformance = "no_such_module:Class"'))
    assert code == 0
    (problem,) = found["good"]["problems"]
    assert (problem["check"], problem["severity"]) == ("conformance", "warning")


def test_what_is_not_let_in_is_shown_and_not_imported(
    doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "noisy")
    code, found = doctor(noisy=f"open({str(tmp_path / 'trace')!r}, 'w')")
    assert code == 0
    assert (found["noisy"]["state"], found["noisy"]["import_ms"]) == ("blocked", None)
    assert not (tmp_path / "trace").exists()


def test_the_process_that_imports_a_plugin_has_no_secret(
    doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PASSWORD", "SESSION", "WEBHOOK_SECRET", "MASK_KEY", "URL"):
        monkeypatch.setenv(f"CRDBEXPORT_{name}", "canary-of-the-doctor")
    doctor(nosy=f"import os\nopen({str(tmp_path / 'seen')!r}, 'w').write(' '.join(os.environ))")
    seen = {each for each in (tmp_path / "seen").read_text().split() if each.startswith("CRDBEXPORT_")}
    assert seen == {"CRDBEXPORT_URL", "CRDBEXPORT_LOAD_PLUGINS", "CRDBEXPORT_STATE_DIR"}


def test_a_file_is_examined_with_the_line_that_is_at_fault(doctor: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "my_sink.py"
    path.write_text("import os\nimport no_such_library\n")
    code, found = doctor("--plugin", str(path))
    assert code == 3
    assert found["my_sink"]["problems"][0]["problem"].startswith(f'--plugin "{path}", line 2: ModuleNotFoundError')
    path.write_text(fine("mine"))
    assert doctor("--plugin", str(path))[0] == 0


def test_people_get_one_table_and_a_line_for_each_problem(doctor: Callable[..., Any], run_cli: Run) -> None:
    doctor(ill="import no_such_library")
    ran = run_cli("plugins", "doctor")
    assert ran.exit_code == 3
    lines = ran.out.splitlines()
    assert lines[0].split() == [
        "plugin", "distribution", "state", "ms", "import", "hooks", "api", "names", "options", "conformance",
    ]  # fmt: skip
    assert next(each for each in lines if each.startswith("ill")).split() == [
        "ill", "ill", "1.2", "broken", "-", "FAILS", "-", "-", "-", "-", "-",
    ]  # fmt: skip
    assert lines[-1] == (
        "error: plugin ill: ModuleNotFoundError: No module named 'no_such_library'; install what it needs, update it, "
        "or leave it out with CRDBEXPORT_BLOCK_PLUGINS"
    )
