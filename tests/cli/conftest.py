"""Commands as processes of their own, and plugins that are installed for them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

import crdbexport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World
from tests.canaries import PASSWORD

SCRIPTS = Path(sys.executable).parent
Start = Callable[..., "subprocess.Popen[str]"]


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    """This environment, in which the scripts of this Python are found first."""
    return {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "CRDBEXPORT_PASSWORD": "demo", **more}


@pytest.fixture(scope="session")
def launch() -> Iterator[Start]:
    """Starts the command in a directory as a process with pipes; whatever still runs in the end is killed."""
    with ExitStack() as started:

        def run(place: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [str(SCRIPTS / "crdbexport"), *arguments],
                cwd=place,
                env=environment(more),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield run


@pytest.fixture
def start(launch: Start, tmp_path: Path) -> Start:
    """Starts the command in the test's own directory."""
    return functools.partial(launch, tmp_path)


@pytest.fixture
def in_shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line as a person would, in bash, with the scripts of this Python on the path."""

    def run(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=environment(more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def install() -> Callable[[Path, str, str], dict[str, str]]:
    """Installs a plugin distribution with one module; answers the variables that let a process find it."""

    def run(site: Path, name: str, source: str) -> dict[str, str]:
        metadata = site / f"{name}-1.2.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[crdbexport]\n{name} = {name}_plugin\n")
        (site / f"{name}_plugin.py").write_text(source)
        return {"PYTHONPATH": f"{site}{os.pathsep}{Path(crdbexport.__file__).parent.parent}"}

    return run


@pytest.fixture
def installed(install: Callable[..., dict[str, str]], tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Installs a plugin in the test's own directory."""
    return functools.partial(install, tmp_path / "site")


@pytest.fixture
def app() -> Sandbox:
    return Sandbox(World(2, 4))


@pytest.fixture
def url(app: Sandbox, serve: Callable[[Sandbox], str]) -> str:
    return serve(app)


@pytest.fixture
def cluster(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that reach the sandbox; the password is in the environment."""
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", PASSWORD)
    return ["--url", url, "--cluster", "c1", "--username", "demo"]
