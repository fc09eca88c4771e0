"""What pytest loads by itself costs nothing, and gives authors their tests; README's example is one of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = "crdbexport.testing.pytest_plugin"
# By its own name, so that it is the one of this checkout, whatever is installed.
PLUGINS = f"-p no:crdbexport -p {PLUGIN} -p no:cacheprovider -p no:socket".split()
IMPORTED = f"import sys, pytest; before = set(sys.modules); import {PLUGIN}; print(*sorted(set(sys.modules) - before))"


def python_block(marker: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if marker in block)


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *PLUGINS, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)


def test_pytest_finds_the_plugin() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert declared["entry-points"]["pytest11"] == {"crdbexport": PLUGIN}
    assert any(each.startswith("pytest") for each in declared["optional-dependencies"]["testing"])


@pytest.mark.slow
def test_the_plugin_imports_nothing_but_pytest() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["crdbexport", "crdbexport.testing", PLUGIN]


@pytest.mark.slow
def test_an_author_has_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import httpx\n\n"
        "def test_it_serves(crdb_sandbox):\n"
        "    reply = httpx.post(f'{crdb_sandbox}/api/v2/login/', data={'username': 'demo', 'password': 'demo'})\n"
        "    assert reply.json()['session']\n"
    )
    ran = run_pytest(tmp_path)
    assert "1 passed" in ran.stdout, ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_readme_s_sink_passes_readme_s_test(tmp_path: Path) -> None:
    (tmp_path / "crdbexport_sqlite.py").write_text(python_block("class SQLiteSink"))
    (tmp_path / "test_sqlite.py").write_text(python_block("class TestSQLiteSink"))
    ran = run_pytest(tmp_path, "--strict-markers", "-m", "not slow")
    assert ran.returncode == 0, ran.stdout
    (passed,) = re.findall(r"(\d+) passed", ran.stdout)
    assert int(passed) >= 40
    assert "1 deselected" in ran.stdout
    assert "::test_uncovered_records_stay: not applicable: upsert is not declared" in ran.stdout
