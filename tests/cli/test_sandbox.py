"""`crdbexport sandbox`: a simulated cluster in the foreground, and the command that exports it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., Any]


def announced(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The address that the sandbox tells, and the command."""
    assert process.stderr
    first, command = process.stderr.readline(), process.stderr.readline()
    assert first.startswith("sandbox at http://127.0.0.1:"), first
    return first.split()[2], command.strip()


@pytest.mark.slow
def test_the_command_that_it_prints_exports_it_until_control_c(start: Start, in_shell: Run, tmp_path: Path) -> None:
    process = start("sandbox", "--port", "0", "--databases", "1", "--tables", "3", "--hostile-names")
    address, command = announced(process)
    assert address.removesuffix("/api/v2") in command
    ran = in_shell(command)
    # Hard names bring gaps, which the export declares.
    assert ran.returncode == 3, ran.stderr
    assert len(list((tmp_path / "lake/_manifests").iterdir())) == 1
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.slow
def test_a_sandbox_without_login_says_so_in_its_command(start: Start) -> None:
    process = start("sandbox", "--port", "0", "--no-login")
    address, command = announced(process)
    assert command == f"crdbexport export --url {address[:-7]} --cluster sandbox --no-login --sink parquet:./lake"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (143, -signal.SIGTERM)


def test_a_port_in_use_is_refused(run_cli: Run, url: str) -> None:
    port = url.rpartition(":")[2]
    ran = run_cli("sandbox", "--port", port)
    assert (ran.exit_code, ran.out) == (2, "")
    assert ran.err == f"error: port {port} is in use on 127.0.0.1; choose another with --port\n"


@pytest.mark.parametrize(
    "option", [["--port", "65536"], ["--databases", "-1"], ["--fault-rate", "2"], ["--latency-ms", "x"]]
)
def test_an_option_out_of_range_is_refused(run_cli: Run, option: list[str]) -> None:
    ran = run_cli("sandbox", *option)
    assert (ran.exit_code, ran.out) == (2, "")
    assert f"Invalid value for '{option[0]}'" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.slow
def test_an_export_needs_nothing_but_the_sandbox(run_cli: Run, tmp_path: Path) -> None:
    ran = run_cli("export", "--sandbox", "--sink", f"parquet:{tmp_path / 'lake'}")
    assert (ran.exit_code, ran.out) == (0, "")
    assert "of sandbox: complete" in ran.err
    assert len(list((tmp_path / "lake").rglob("date=*/sandbox.*.parquet"))) == 6
