from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

SANDBOX = [sys.executable, "-W", "error", "-m", "crdbexport", "sandbox", "--port", "0"]


@contextmanager
def running(*options: str) -> Iterator[tuple[httpx.Client, str]]:
    """A client of the command's sandbox and the line that tells how to export it; ends it with Ctrl-C."""
    with subprocess.Popen([*SANDBOX, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url, export = process.stderr.readline().split()[2], process.stderr.readline()
        with httpx.Client(base_url=url, trust_env=False, verify=False) as client:
            yield client, export
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


@pytest.mark.slow
def test_the_native_dialect_runs_with_its_quirks() -> None:
    options = ("--dialect", "native", "--generation", "v22", "--insecure", "--native-names", "--hide", "movr")
    with running(*options, "--views", "1") as (client, export):
        databases = client.get("/databases/").json()["databases"]
        assert ("movr" in databases, "node-red" in databases) == (False, True)
        assert len(client.get("/databases/bank/tables/").json()["table_names"]) == 13
        assert client.get("/database_metadata/").text == "404 page not found\n"
    assert "--no-login" in export


def test_an_option_of_the_native_dialect_is_refused_without_it(run_cli: Any) -> None:
    ran = run_cli("sandbox", "--stats-age-hours", "0", "--host", "192.0.2.1")
    assert (ran.exit_code, ran.out) == (2, "")
    assert "--stats-age-hours says how real servers answer; add --dialect native" in ran.err


def test_help_lists_the_options_of_the_native_dialect_apart(run_cli: Any) -> None:
    ran = run_cli("sandbox", "--help")
    common, title, native = ran.out.partition("With --dialect native:")
    assert (ran.exit_code, title != "") == (0, True)
    for option in ("--generation", "--cold-cache", "--insecure", "--tenant"):
        assert option in native
        assert option not in common


@pytest.mark.parametrize("options", [("--generation", "v23"), ("--dialect", "auto"), ("--views", "-1")])
def test_a_value_that_is_none_is_a_usage_error(run_cli: Any, options: tuple[str, ...]) -> None:
    assert run_cli("sandbox", *options).exit_code == 2
