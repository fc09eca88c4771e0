"""A plugin of one file comes in by its path, without packaging, and is refused with the line that is at fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from crdbexport import RunReport
from crdbexport.errors import PluginError
from crdbexport.plugin_files import MODULE_PREFIX, module_name
from crdbexport.plugin_manager import load_plugins
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World
from tests.conftest import Ran

Run = Callable[..., Ran]

COUNTING = """
from pathlib import Path

from crdbexport import Sink, SinkConfig, hookimpl
from crdbexport.testing import Capabilities, SinkConformance


class Counting(Sink):
    \"\"\"Counts records.\"\"\"

    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path

    conformance = ":CountingConformance"

    def open(self):
        self.count = 0

    def write(self, batch):
        self.count += batch.data.num_rows

    def commit(self):
        self.config.path.parent.mkdir(exist_ok=True)
        self.config.path.write_text(str(self.count))


class CountingConformance(SinkConformance):
    def make_sink(self, place):
        return Counting(Counting.Config(path=place / "n"))

    def read_back(self, place):
        return {}


@hookimpl
def crdbexport_register_sinks(register):
    register("counting", Counting)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plugin of one file."""

    def write(code: str, name: str = "my_sink.py") -> Path:
        path = tmp_path / "mine" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(code))
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(PluginError) as raised:
        load_plugins(files=[path])
    assert raised.value.exit_code == 2
    assert module_name(path) not in sys.modules
    return str(raised.value)


def test_a_file_is_known_by_its_stem_and_its_label_says_that_it_is_one(plugin: Callable[..., Path]) -> None:
    path = plugin(COUNTING)

    info = load_plugins(files=[path]).sink("counting").plugin

    assert (info.name, info.label, info.location) == ("my_sink", "my_sink (file)", str(path))


def test_its_module_is_nobody_else_s_and_leaves_nothing_beside_the_file(plugin: Callable[..., Path]) -> None:
    path = plugin(COUNTING, "json.py")
    kind = load_plugins(files=[path]).sink("counting").kind
    assert kind.__module__.startswith(MODULE_PREFIX)
    assert sys.modules[kind.__module__].__file__ == str(path)
    assert sys.modules["json"] is json
    assert [each.name for each in path.parent.iterdir()] == ["json.py"]


def test_a_change_of_the_file_counts_at_once(plugin: Callable[..., Path]) -> None:
    path = plugin(COUNTING)
    load_plugins(files=[path])
    path.write_text(path.read_text().replace('register("counting"', 'register("recounts"'))
    assert "recounts" in load_plugins(files=[path]).sinks


def test_a_file_takes_a_run_and_its_report_names_it(
    plugin: Callable[..., Path], export: Callable[..., RunReport], serve: Callable[[Sandbox], str], tmp_path: Path
) -> None:
    url = serve(Sandbox(World(databases=1, tables=1)))
    sinks = {"n": {"type": "counting", "target": str(tmp_path / "n")}}

    report = export(url, plugin=(plugin(COUNTING),), sinks=sinks)

    assert report.exit_code == 0
    assert int((tmp_path / "n").read_text()) == sum(each.extracted for each in report.streams.values()) > 0
    assert report.versions["my_sink"] == "(file)"


def test_a_resumed_run_needs_the_file_as_it_needs_any_plugin(
    plugin: Callable[..., Path], run_cli: Run, cluster: list[str], tmp_path: Path
) -> None:
    path = plugin(COUNTING.replace("self.count += ", "raise OSError('busy'); self.count += "))
    command = ["export", *cluster, "--sink", f"counting:{tmp_path / 'n'}", "--run-id", "r1"]
    assert run_cli(*command, "--plugin", str(path)).exit_code == 5
    path.write_text(COUNTING)

    without = run_cli(*command)
    again = run_cli("runs", "deliver", "r1", "--sink", f"counting:{tmp_path / 'n'}", "--plugin", str(path))

    assert without.exit_code == 2
    assert "no sink type 'counting'" in without.err
    assert again.exit_code == 0, again.err
    assert int((tmp_path / "n").read_text()) > 0


@pytest.mark.parametrize("command", [["list"], ["show", "counting"]], ids=" ".join)
def test_commands_about_plugins_know_it(plugin: Callable[..., Path], run_cli: Run, command: list[str]) -> None:
    path = plugin(COUNTING)
    ran = run_cli("plugins", *command, "--plugin", str(path))
    assert ran.exit_code == 0
    assert "my_sink (file)" in ran.out
    assert str(path) in ran.out


def test_a_variable_and_the_configuration_file_name_it_too(
    plugin: Callable[..., Path],
    run_cli: Run,
    cluster: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, settings = plugin(COUNTING), tmp_path / "settings.toml"
    settings.write_text(f'plugin = ["{path}"]\n')
    sink = ["--sink", f"counting:{tmp_path / 'n'}"]
    assert run_cli("check", *cluster, *sink, "--config", str(settings)).exit_code == 0
    monkeypatch.setenv("CRDBEXPORT_PLUGIN", str(path))
    assert run_cli("check", *cluster, *sink).exit_code == 0
    assert "my_sink (file)" in run_cli("plugins", "list").out


@pytest.mark.slow
def test_its_conformance_is_tried_although_processes_are_killed(plugin: Callable[..., Path], run_cli: Run) -> None:
    path = plugin(COUNTING)
    ran = run_cli("plugins", "conformance", "counting", "--plugin", str(path), "--json")
    assert ran.exit_code == 3
    verdicts = {each["name"]: each for each in json.loads(ran.out)["checks"]}
    assert verdicts["prints_nothing"]["verdict"] == "passed"
    assert "missing" in verdicts["crash_in_commit"]["reason"]


BAD = {
    "syntax": ("import os\n\ndef broken(:\n", ", line 3: SyntaxError: "),
    "import": (
        "import os\nimport no_such_library\n",
        ", line 2: ModuleNotFoundError: No module named 'no_such_library'",
    ),
    "exit": ("\n\nraise SystemExit(0)\n", ", line 3: SystemExit: 0"),
    "no hook": ("x = 1\n", ": it holds no hook; mark a function with @crdbexport.hookimpl"),
    "misspelt": (
        "from crdbexport import hookimpl\n\n@hookimpl\ndef crdbexport_register_sink(register): ...\n",
        ", line 3: there is no hook 'crdbexport_register_sink'; did you mean 'crdbexport_register_sinks'?",
    ),
    "argument": (
        "from crdbexport import hookimpl\n\n@hookimpl\ndef crdbexport_register_sinks(registry): ...\n",
        ", line 3: PluginValidationError: ",
    ),
    "registration": (
        "from crdbexport import hookimpl\n\n@hookimpl\ndef crdbexport_register_sinks(register):\n    register('x', 1)",
        ", line 5: 'x' is not a subclass of crdbexport.Sink",
    ),
    "taken": (
        COUNTING.replace('register("counting"', 'register("parquet"'),
        ": 'parquet' is already offered by crdbexport ",
    ),
}


@pytest.mark.parametrize(("code", "told"), BAD.values(), ids=BAD)
def test_a_broken_file_is_refused_with_its_line(plugin: Callable[..., Path], code: str, told: str) -> None:
    path = plugin(code)
    place, _, cause = refusal(path).partition(str(path))
    assert place == '--plugin "'
    assert told in cause if told.startswith(": 'parquet'") else cause.startswith(f'"{told}')


def test_what_is_no_file_of_python_is_refused(plugin: Callable[..., Path], tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.py") == f'--plugin "{tmp_path / "none.py"}": there is no such file'
    assert refusal(plugin("", "sink.txt")).endswith('sink.txt": not a Python file; its name ends in .py')


def test_two_files_of_one_name_are_refused(plugin: Callable[..., Path], tmp_path: Path) -> None:
    first = plugin(COUNTING)
    with pytest.raises(PluginError, match="has the same name; give one another"):
        load_plugins(files=[first, first])


def test_the_command_line_refuses_in_one_line(plugin: Callable[..., Path], run_cli: Run, cluster: list[str]) -> None:
    path = plugin("import os\nimport no_such_library\n")
    ran = run_cli("export", *cluster, "--sink", "jsonl:-", "--plugin", str(path))
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err == (f"error: --plugin \"{path}\", line 2: ModuleNotFoundError: No module named 'no_such_library'\n")


@pytest.mark.parametrize(
    ("variables", "third_party", "state"),
    [
        ({"CRDBEXPORT_BLOCK_PLUGINS": "my-sink"}, True, "blocked"),
        ({"CRDBEXPORT_LOAD_PLUGINS": "builtin"}, True, "not allowed"),
        ({"CRDBEXPORT_LOAD_PLUGINS": "my_sink"}, True, "loaded"),
        ({}, False, "blocked"),
    ],
)
def test_a_file_is_left_out_like_any_plugin_and_not_even_imported(
    plugin: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    third_party: bool,
    state: str,
) -> None:
    path = plugin(f"{COUNTING}\nPath(__file__).with_suffix('.imported').touch()\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    plugins = load_plugins(third_party=third_party, files=[path])
    assert plugins.infos[-1].state == state
    assert path.with_suffix(".imported").exists() == (state == "loaded") == ("counting" in plugins.sinks)
