"""docs/plugins.md is what the code does: its hooks, its examples, its gallery.

`python -m tests.test_plugins_page` writes the gallery anew (`poe gallery`).
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crdbexport
from crdbexport import ExportConfig, RunReport
from crdbexport.cli.plugins import command as plugins_command
from crdbexport.hookspecs import ProcessHooks, SinkHooks
from crdbexport.plugin_manager import Plugins, load_plugins
from crdbexport.testing.conformance import Capabilities, load_conformance
from tests.conftest import Ran

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "plugins.md"
BEGIN, END = "<!-- gallery -->\n", "<!-- /gallery -->"
HEAD = (
    "| sink | from | what it does | keeps | transactional | idempotent | upsert | partitioned | remote |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)
FEATURES = ("transactional", "idempotent", "upsert", "partitioned", "remote")
THREADS = ("main thread", "observers' thread", "lane's thread")
HOOKS = {
    name: (specs, function)
    for specs in (ProcessHooks, SinkHooks)
    for name, function in vars(specs).items()
    if inspect.isfunction(function)
}


def shipped() -> set[str]:
    """The distributions of this repository."""
    projects = [ROOT / "pyproject.toml", *sorted((ROOT / "plugins").glob("*/pyproject.toml"))]
    return {tomllib.loads(path.read_text())["project"]["name"] for path in projects}


def gallery() -> str:
    """The table of all sinks that ship and are installed, from what they declare to the kit."""
    plugins, mine = load_plugins(), shipped()
    offers = [(name, offer) for name, offer in plugins.sinks.items() if offer.plugin.distribution in mine]
    return HEAD + "".join(
        f"| `{name}` | {offer.plugin.distribution} | {_summary(offer.kind)} | {_features(offer.kind)} |\n"
        for name, offer in offers
    )


def _summary(kind: type) -> str:
    paragraph = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def _features(kind: Any) -> str:
    declared: Capabilities = load_conformance(kind.conformance).capabilities
    return " | ".join((_kept(declared), *("yes" if getattr(declared, each) else "no" for each in FEATURES)))


def _kept(declared: Capabilities) -> str:
    if declared.append_only:
        return "every run"
    if declared.latest_only:
        return "the latest run of each cluster"
    return "the present state" if declared.upsert else "a snapshot a logical time"


def page() -> str:
    """The page with its gallery written anew."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN) + len(BEGIN)] + gallery() + text[text.index(END) :]


def section(hook: str) -> str:
    """What the page says below the heading of a hook."""
    found = re.search(rf"^### `{hook}\(.*?\)`\n(.*?)(?=^##)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, hook
    return found[1]


def examples() -> list[str]:
    """The examples that are whole plugins."""
    found = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [each for each in found if "@hookimpl" in each]


def example(with_text: str) -> str:
    (found,) = [each for each in examples() if with_text in each]
    return found


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    """Every example in a file of its own."""
    paths = tuple(tmp_path / f"example_{number}.py" for number, _ in enumerate(examples()))
    for path, code in zip(paths, examples(), strict=True):
        path.write_text(code)
    return paths


@pytest.fixture
def plugins(files: tuple[Path, ...]) -> Plugins:
    return load_plugins(third_party=True, files=files)


def test_the_gallery_is_what_the_sinks_declare() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: poe gallery"


def test_the_page_has_every_hook_with_its_signature_and_no_other() -> None:
    wanted = [
        f"### `{name}({', '.join(list(inspect.signature(function).parameters)[1:])})`"
        for name, (_, function) in HOOKS.items()
    ]
    assert re.findall(r"^### .*$", PAGE.read_text(), re.MULTILINE) == wanted


@pytest.mark.parametrize("hook", HOOKS)
def test_the_page_tells_thread_and_exception_as_the_specification_does(hook: str) -> None:
    specs, function = HOOKS[hook]
    contract = f"{inspect.getdoc(specs)} {inspect.getdoc(function)}" if specs is SinkHooks else inspect.getdoc(function)
    (thread,) = [each for each in THREADS if each in " ".join(str(contract).split())]
    told = " ".join(section(hook).split())
    assert thread in told
    assert re.search(r"[Aa]n exception", told)


@pytest.mark.parametrize("hook", [name for name, (specs, _) in HOOKS.items() if specs is ProcessHooks])
def test_the_example_of_a_hook_implements_it(hook: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", section(hook), re.MULTILINE | re.DOTALL)
    path = tmp_path / "example.py"
    path.write_text(code)
    assert load_plugins(third_party=False, files=()).infos
    info = load_plugins(files=[path]).infos[-1]
    assert info.hooks == [hook]


def test_the_example_of_a_sink_has_every_method_with_every_argument(plugins: Plugins) -> None:
    kind = plugins.sink("tallies").kind
    for name, (specs, function) in HOOKS.items():
        if specs is SinkHooks:
            assert list(inspect.signature(getattr(kind, name)).parameters) == list(
                inspect.signature(function).parameters
            )


@pytest.mark.slow
def test_the_examples_do_what_they_say(
    files: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tallies").mkdir()
    sinks = {
        "count": {"type": "count", "target": str(tmp_path / "count")},
        "null": {"type": "null"},
        "tallies": {"type": "tallies", "target": str(tmp_path / "tallies")},
    }
    transforms = ({"type": "without-grantee"},)
    config = ExportConfig(
        sandbox=True, plugin=files, sinks=sinks, transforms=transforms, state_dir=tmp_path / "state", run_id="r1"
    )

    with caplog.at_level(logging.INFO, "crdbexport"):
        report: RunReport = crdbexport.export(config)

    kept = {name: counts.extracted - counts.filtered for name, counts in report.streams.items()}
    assert report.exit_code == 0
    assert report.streams["table_grants"].filtered > 0
    assert int((tmp_path / "count").read_text()) == sum(kept.values())
    assert json.loads((tmp_path / "tallies" / "tallies.json").read_text()) == {"complete": True, **kept}
    messages = [record.getMessage() for record in caplog.records]
    assert "run r1 of sandbox begins" in messages
    assert any(re.fullmatch(r"null took [1-9]\d* records of tables", each) for each in messages)
    assert "run r1 is complete with 0 gaps" in messages


def test_the_sink_of_the_page_refuses_a_directory_that_is_not_there(files: tuple[Path, ...], tmp_path: Path) -> None:
    sinks = {"tallies": {"type": "tallies", "target": str(tmp_path / "none")}}
    config = ExportConfig(sandbox=True, plugin=files, sinks=sinks, state_dir=tmp_path / "state")
    with pytest.raises(crdbexport.ConfigError, match="there is no such directory; make it"):
        crdbexport.export(config)


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("crdbexport "):
                yield shlex.split(line, comments=True)[1:]


def test_the_commands_of_the_page_exist() -> None:
    subcommands = [each[1] for each in commands() if each[0] == "plugins"]
    assert {"new", "list", "doctor", "show"} == set(subcommands)
    assert set(subcommands) <= set(plugins_command.commands)


@pytest.mark.slow
def test_the_first_example_works_as_the_page_says(
    run_cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "count.py").write_text(example("class CountSink"))
    monkeypatch.chdir(tmp_path)
    ran = [run_cli(*each) for each in commands() if "--plugin" in each]
    assert [each.exit_code for each in ran] == [0, 0], [each.err for each in ran]
    assert int((tmp_path / "records").read_text()) > 0
    assert "from count (file) (count.py)" in ran[1].out


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(gallery())
