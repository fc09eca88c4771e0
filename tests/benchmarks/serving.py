"""The servers of the benchmark, each a process of its own that ends with its context: nginx, and the slow server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.slow_server import TALLY, Behaviour, arguments
from tests.benchmarks.workload import SESSION, Workload

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 10.0
# Where Debian and others put it, which the PATH of many accounts leaves out.
SYSTEM_DIRECTORIES = "/usr/sbin:/usr/local/sbin"

CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 10000000;
    open_file_cache max=20000 inactive=10m;
    {temporary}
    server {{
        listen 127.0.0.1:{port};
        root {files};
        location ~ ^/api/v2/login/?$ {{ return 200 '{session}'; }}
        location ~ ^/api/v2/(logout|health)/?$ {{ return 200 '{{}}'; }}
        location / {{
            rewrite ^(.+)/$ $1 break;
            try_files $uri.json =404;
        }}
    }}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class MissingServerError(Exception):
    """A server is not installed."""


def nginx_program() -> str:
    """The path of nginx; raises `MissingServerError` where it is not installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path=SYSTEM_DIRECTORIES)
    if found is None:
        raise MissingServerError(
            "nginx is neither on the PATH nor in /usr/sbin; install it (Debian, Ubuntu: apt-get install nginx-light; "
            "Fedora: dnf install nginx-core; macOS: brew install nginx)"
        )
    return found


def nginx_version() -> str:
    told = subprocess.run([nginx_program(), "-v"], capture_output=True, text=True, check=True).stderr
    return told.partition("/")[2].strip()


def write_files(workload: Workload, directory: Path) -> None:
    """Write every answer into a file that nginx serves."""
    for path in workload.paths():
        file = directory / f"{path[1:]}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(workload.answer(path) or b"")


def nginx_configuration(directory: Path, files: Path, port: int) -> str:
    """A configuration that writes below `directory` alone."""
    temporary = "\n    ".join(f"{each}_temp_path {directory}/{each};" for each in TEMPORARY)
    return CONFIGURATION.format(
        directory=directory, files=files, port=port, session=SESSION.decode(), temporary=temporary
    )


@contextlib.contextmanager
def nginx(directory: Path, workload: Workload) -> Iterator[str]:
    """nginx over the workload's answers as files; yields its URL."""
    program = nginx_program()
    files, port = directory / "answers", _free_port()
    write_files(workload, files)
    configuration = directory / "nginx.conf"
    configuration.write_text(nginx_configuration(directory, files, port))
    errors = directory / "error.log"
    command = [program, "-p", str(directory), "-c", str(configuration), "-e", str(errors)]
    with _running(command, subprocess.DEVNULL) as process:
        _await_port(process, port, errors)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def slow_server(databases: int, tables: int, behaviour: Behaviour) -> Iterator[str]:
    """The slow server with that workload and behaviour; yields its URL."""
    with started("tests.benchmarks.slow_server", *arguments((databases, tables), behaviour)) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def started(module: str, *given: str) -> Iterator[str]:
    """A server that is a module; yields the first line that it prints, which says where it is."""
    with _running([sys.executable, "-m", module, *given], subprocess.PIPE) as process:
        assert process.stdout is not None
        if not (told := process.stdout.readline().decode().strip()):
            raise MissingServerError(f"{module} {' '.join(given)} did not start; what it lacks stands above")
        yield told


def tally(url: str) -> dict[str, float]:
    """What a slow server has seen so far: see `Tally.summary`."""
    with urllib.request.urlopen(url + TALLY, timeout=START_SECONDS) as reply:
        told: dict[str, float] = json.load(reply)
        return told


@contextlib.contextmanager
def _running(command: list[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, env=dict(os.environ))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, errors: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    told = errors.read_text() if errors.exists() else "nothing"
    raise RuntimeError(f"nginx did not start on port {port}; its log says: {told}")
