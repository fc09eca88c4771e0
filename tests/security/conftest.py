"""Plugins that are installed for one test, and what they have to give away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World
from tests.canaries import PASSWORD

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages, beside the test's own."""
    path = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(path)
    return path


@pytest.fixture
def install(site: Path) -> Iterator[Install]:
    """Puts a distribution of one module there, as an installer would; what it is to know comes in by a module."""
    modules: list[str] = []

    def put(name: str, source: str, **knows: Any) -> None:
        metadata = site / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[crdbexport]\n{name} = {name}_plugin\n")
        (site / f"{name}_plugin.py").write_text(dedent(source))
        known = ModuleType(f"{name}_knows")
        vars(known).update(knows)
        sys.modules[known.__name__] = known
        modules.extend((known.__name__, f"{name}_plugin"))

    yield put
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def url(serve: Callable[[Any], str]) -> str:
    return serve(Sandbox(World(2, 3)))


@pytest.fixture
def cluster(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that reach the sandbox; the password is in the environment."""
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", PASSWORD)
    return ["--url", url, "--cluster", "c1", "--username", "demo"]
