"""`crdbexport plugins new`: what it writes is green at once, and what it cannot write is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.scaffold import naming
from tests.conftest import Ran

Run = Callable[..., Ran]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["sink", "transform", "observer"])
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_new_distribution_is_green_at_once(run_cli: Run, tmp_path: Path, kind: str) -> None:
    made, site = tmp_path / "made", tmp_path / "site"
    assert run_cli("plugins", "new", "Sample_Thing", "--kind", kind, "--output", str(made)).exit_code == 0

    def ran(*command: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=made,
            env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    for arguments in (["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy", "--cache-dir", os.devnull]):
        ran(*arguments)
    ran("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), ".")
    assert (site / "crdbexport_sample_thing" / "py.typed").exists()
    passed = ran("pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in passed
    assert " failed" not in passed
    listed = ran("crdbexport", "plugins", "list")
    assert "sample-thing  crdbexport-sample-thing 0.1.0  crdbexport_sample_thing  loaded" in listed


@pytest.mark.slow
def test_a_new_distribution_is_whole_and_says_nothing_of_where_it_was_made(run_cli: Run, tmp_path: Path) -> None:
    ran = run_cli("plugins", "new", "kafka", "--kind", "sink", "--output", str(tmp_path / "made"))
    files = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert files == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "crdbexport_kafka/__init__.py",
        "crdbexport_kafka/conformance.py",
        "crdbexport_kafka/py.typed",
        "crdbexport_kafka/sink.py",
        "pyproject.toml",
        "tests/test_conformance.py",
        "tests/test_sink.py",
    }
    assert ran.out.splitlines() == sorted(str(tmp_path / "made" / each) for each in files)
    assert "pip install -e '.[dev]' && pytest" in ran.err
    for each in files:
        text = (tmp_path / "made" / each).read_text()
        assert str(tmp_path) not in text
        assert re.findall(r"\{%|\{\{ (?!matrix)", text) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_an_empty_directory_is_taken(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert run_cli("plugins", "new", "kafka", "--kind", "observer", "--output", str(tmp_path / "made")).exit_code == 0
    assert (tmp_path / "made" / "pyproject.toml").exists()


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("parquet", "sink", "sink 'parquet' is already offered by crdbexport "),
        ("crdbexport-Parquet", "sink", "sink 'parquet' is already offered by crdbexport "),
        ("mask", "transform", "transform 'mask' is already offered by crdbexport "),
        ("../kafka", "sink", "cannot be the name of a distribution"),
        ("kafka-", "sink", "cannot be the name of a distribution"),
        ("3scale", "sink", "cannot be the name of a distribution"),
        ("käfka", "sink", "cannot be the name of a distribution"),
        ("crdbexport", "observer", "leaves no name for the observer"),
    ],
)
def test_a_name_that_cannot_be_is_refused(run_cli: Run, tmp_path: Path, name: str, kind: str, told: str) -> None:
    ran = run_cli("plugins", "new", name, "--kind", kind, "--output", str(tmp_path / "made"))
    assert (ran.exit_code, ran.out) == (2, "")
    assert told in ran.err
    assert not (tmp_path / "made").exists()


def test_a_distribution_that_is_installed_is_not_begun_again(
    run_cli: Run, installed: Callable[..., dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("crdbexport-kafka", "import a_library_that_is_missing")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    ran = run_cli("plugins", "new", "kafka", "--kind", "transform", "--output", str(tmp_path / "made"))
    assert ran.exit_code == 2
    assert "crdbexport-kafka 1.2 is already installed" in ran.err


def test_a_directory_that_is_not_empty_is_left_alone(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").write_text("mine")
    ran = run_cli("plugins", "new", "kafka", "--kind", "sink", "--output", str(tmp_path / "made"))
    assert ran.exit_code == 2
    assert f"{tmp_path / 'made'} is there and not empty; give another with --output DIR" in ran.err
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mine"]


def test_without_copier_the_extra_is_named(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    ran = run_cli("plugins", "new", "kafka", "--kind", "sink", "--output", str(tmp_path / "made"))
    assert ran.exit_code == 2
    assert "copier is not installed; install it with: pip install 'crdbexport[new]'" in ran.err
    assert list(tmp_path.glob("*made*")) == []


def test_short_and_full_names_mean_the_same() -> None:
    assert naming("My.Sink", "sink") == naming("crdbexport-my_sink", "sink")
    names: Any = naming("My.Sink", "sink")
    assert (names.distribution, names.package, names.type) == ("crdbexport-my-sink", "crdbexport_my_sink", "my-sink")
    assert names.class_name == "MySinkSink"


def test_the_template_is_in_the_wheel(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    shipped = {each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_included_files()}
    template = ROOT / "crdbexport" / "scaffold" / "template"
    wanted = {str(path.relative_to(ROOT)) for path in template.rglob("*") if path.is_file()}
    assert len(wanted) > 15
    assert wanted <= shipped
