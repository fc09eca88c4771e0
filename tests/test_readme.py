"""README's code works as it stands."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from crdbexport.config import parse_config

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.mark.slow
def test_the_sink_in_readme_works_as_an_installed_plugin(tmp_path: Path) -> None:
    source = next(block for block in blocks("python") if "class SQLiteSink" in block)
    entry_point = next(block for block in blocks("toml") if "entry-points" in block)
    declared = tomllib.loads(entry_point)["project"]
    ((name, module),) = declared["entry-points"]["crdbexport"].items()
    (tmp_path / f"{module}.py").write_text(source)
    info = tmp_path / f"{module}-{declared['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {declared['name']}\nVersion: {declared['version']}\n")
    (info / "entry_points.txt").write_text(f"[crdbexport]\n{name} = {module}\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "crdbexport", *arguments]
        environment = {"PYTHONPATH": str(tmp_path), "CRDBEXPORT_STATE_DIR": str(tmp_path / "state"), "PATH": ""}
        return subprocess.run(
            command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    listed = run("plugins", "list").stdout
    assert f"{declared['name']} {declared['version']}" in listed
    for _ in range(2):
        exported = run("export", "--sandbox", "--sink", "sqlite:./crdb.sqlite")
        assert exported.returncode == 0, exported.stderr
    db = sqlite3.connect(tmp_path / "crdb.sqlite")
    try:
        (tables,), (databases,) = (
            db.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("tables", "databases")
        )
    finally:
        db.close()
    assert tables > databases > 0


def test_the_configuration_in_readme_is_valid() -> None:
    settings = tomllib.loads(next(block for block in blocks("toml") if "[sinks.lake]" in block))
    config = parse_config(settings)
    assert set(config.sinks) == {"lake", "audit"}
    assert [each["type"] for each in config.transforms] == ["filter", "mask"]


def test_ci_runs_the_very_test_command_of_readme() -> None:
    runner = README.parent / ".ci" / "run"
    assert "<!-- tests -->" in runner.read_text()
    section = README.read_text().split("<!-- tests -->")[1].split("<!-- /tests -->")[0]
    assert section.count("pytest") == 1


def test_every_exit_code_in_readme_is_one_that_the_product_has() -> None:
    from crdbexport import errors
    from crdbexport.pipeline.verdict import COMPLETE, INCOMPLETE

    own = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    table = re.findall(r"^\| ([0-9, ]+) \|", README.read_text(), re.MULTILINE)
    told = {int(code) for cell in table for code in cell.split(",")}
    assert told == own | {COMPLETE, INCOMPLETE, 130, 143}
