"""The command answers at once because it loads nothing that it does not need, and every library has one door."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import crdbexport

PACKAGE = Path(crdbexport.__file__).parent
HEAVY = {"httptools", "httpx", "pyarrow", "rich", "starlette", "uvicorn", "loud", "copier"}
COMMANDS = (
    "",
    "export",
    "check",
    "streams",
    "plugins",
    "plugins list",
    "plugins show",
    "plugins new",
    "plugins doctor",
    "verify",
    "sandbox",
    "runs list",
    "runs gc",
)
MODULES_AFTER = """
import json, sys
from crdbexport.cli import main

sys.argv = ["crdbexport", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def with_plugin(tmp_path: Path) -> dict[str, str]:
    """An environment in which a plugin is installed that would be heard if it were imported."""
    metadata = tmp_path / "loud-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[crdbexport]\nloud = loud\n")
    (tmp_path / "loud.py").write_text("print('loaded')\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}


def run(environment: dict[str, str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_importing_the_package_loads_no_library_and_no_plugin(with_plugin: dict[str, str]) -> None:
    ran = run(with_plugin, "import crdbexport, sys; print(*sys.modules)")
    modules = set(ran.stdout.split())
    assert "crdbexport" in modules
    assert not modules & (HEAVY | {"msgspec", "click"})


@pytest.mark.parametrize("arguments", [["--version"], *([*each.split(), "--help"] for each in COMMANDS)], ids=" ".join)
def test_help_and_version_load_no_library_and_no_plugin(with_plugin: dict[str, str], arguments: list[str]) -> None:
    ran = run(with_plugin, MODULES_AFTER, *arguments)
    modules = set(json.loads(ran.stderr))
    assert "crdbexport.cli" in modules
    assert not modules & HEAVY
    assert "version 0.1.0" in ran.stdout if arguments == ["--version"] else ran.stdout.startswith("Usage: crdbexport")


def test_every_public_name_is_there() -> None:
    assert dir(crdbexport) == sorted(crdbexport.__all__)
    assert all(getattr(crdbexport, name) is not None for name in crdbexport.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Snik'"):
        _ = crdbexport.Snik


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("httptools", {"connection.py"}),
        ("httpx", {"http.py", "carrier.py", "connection.py", "proxies.py"}),
        ("tenacity", {"retry.py"}),
        ("pluggy", {"hookspecs.py", "plugin_manager.py"}),
        ("copier", {"scaffold/__init__.py"}),
        ("rich", {"cli/progress.py"}),
        ("standardwebhooks", {"sinks/webhook_endpoint.py"}),
    ],
)
def test_a_library_has_one_door(library: str, doors: set[str]) -> None:
    assert {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if library in imported(path)} == doors


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
