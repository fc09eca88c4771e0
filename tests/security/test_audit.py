"""The audit of locked packages: fails for what is known, and never passes off as checked what was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
FINE = {"name": "click", "version": "8.3", "vulns": []}
BAD = {"name": "urllib3", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.6.3"]}]}
UNKNOWN = {"name": "httpx", "skip_reason": "Dependency not found on PyPI and could not be audited: httpx (0.28.1)"}


def audited(place: Path, source: str) -> tuple[int, str]:
    """The exit code of the audit and what it says, where this is pip-audit."""
    (place / "pip_audit.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    ran = subprocess.run([sys.executable, str(AUDIT)], env=environment, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def answers(*packages: object) -> str:
    return f"print({json.dumps({'dependencies': packages, 'fixes': []})!r})"


@pytest.mark.parametrize(
    ("packages", "exit_code", "told"),
    [
        ([FINE], 0, "audit: 1 locked packages checked, 0 known vulnerabilities\n"),
        ([FINE, BAD], 1, "audit: urllib3 2.0: PYSEC-1, fixed in 2.6.3\naudit: 2 locked packages checked, 1 known"),
        (
            [FINE, UNKNOWN],
            0,
            "audit: not checked, for the database does not know them: httpx\naudit: 1 locked packages",
        ),
        (
            [UNKNOWN],
            0,
            "audit: SKIPPED, nothing was checked: no advisory database can be reached from here (Dependency",
        ),
    ],
)
def test_an_answer_is_counted(tmp_path: Path, packages: list[object], exit_code: int, told: str) -> None:
    code, said = audited(tmp_path, answers(*packages))
    assert code == exit_code
    assert said.startswith(told)


def test_no_way_to_a_database_is_told_as_such(tmp_path: Path) -> None:
    code, said = audited(tmp_path, "raise ConnectionError('no route')")
    assert code == 0
    assert (
        "SKIPPED, nothing was checked: no advisory database can be reached from here (ConnectionError: no route)"
        in said
    )


def test_an_audit_without_its_tool_fails(tmp_path: Path) -> None:
    code, said = audited(tmp_path, "raise SystemExit('No module named pip_audit')")
    assert code == 1
    assert "pip-audit is not installed" in said
