"""Standard error: for people, for machines, or silent; and never a secret."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World

Run = Callable[..., Any]
CANARY = "s3cret-canary"


def events(err: str) -> list[dict[str, Any]]:
    """Every line of standard error, each of which must be one event."""
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines
    assert all(line["event"] and line["level"] and line["message"] and line["time"] for line in lines)
    return lines


def test_machines_get_one_json_object_an_event(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    ran = run_cli(
        "export", *cluster, "--sink", f"lake=parquet:{tmp_path / 'lake'}", "--log-format", "json", "--run-id", "r1"
    )
    assert (ran.exit_code, ran.out) == (0, "")
    told = events(ran.err)
    assert [each["event"] for each in told] == ["run_started", "spooled", "sink_committed", "run_finished"]
    assert told[2]["sink"] == "lake"


@pytest.mark.parametrize(
    ("more", "exit_code", "reason"),
    [
        (["--username", "nobody"], 4, "login refused"),
        (["--database", "nope"], 2, "matches none of the databases"),
        (["--sink", "parqet:x"], 2, "no sink type 'parqet'"),
        (["--config", "/no/such/file"], 2, "cannot be read"),
        (["--logical-time", "never"], 2, "give a date"),
    ],
)
def test_machines_get_errors_as_events_too(
    run_cli: Run, cluster: list[str], tmp_path: Path, more: list[str], exit_code: int, reason: str
) -> None:
    sink = f"lake=jsonl:{tmp_path / 'lake'}"
    ran = run_cli("export", *cluster, "--sink", sink, *more, "--log-format", "json")
    last = events(ran.err)[-1]
    assert (ran.exit_code, last["level"]) == (exit_code, "error")
    assert reason in last["message"]


def test_machines_get_gaps_with_their_facts(
    run_cli: Run, serve: Callable[[Sandbox], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    rule = Rule("/api/v2/databases/bank/grants", Status(403))
    url = serve(Sandbox(World(2, 1), faults=Faults(rules=[rule])))
    sink = f"jsonl:{tmp_path / 'lake'}"
    ran = run_cli("export", "--url", url, "--cluster", "c", "--username", "demo", "--sink", sink, "--log-format=json")
    told = events(ran.err)
    [gap] = [each["gap"] for each in told if each["event"] == "gap"]
    assert gap == {"database": "bank", "part": "grants", "reason": "forbidden", "http_status": 403}
    assert (told[-1]["event"], told[-1]["exit_code"], ran.exit_code) == ("run_error", 3, 3)


def test_quiet_says_nothing_when_all_is_well(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "-q", "--logical-time", "2020-01-01")
    assert (ran.exit_code, ran.out, ran.err) == (0, "", "")


def test_quiet_still_says_what_went_wrong(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "-q", "--username", "nobody")
    assert (ran.exit_code, ran.out) == (4, "")
    assert ran.err.startswith('error: login refused for user "nobody"')
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("setting", ["quiet = true\n", "log_format = 'json'\n"])
def test_the_file_may_choose_the_voice(run_cli: Run, cluster: list[str], tmp_path: Path, setting: str) -> None:
    (tmp_path / "settings.toml").write_text(setting)
    options = ["--config", str(tmp_path / "settings.toml"), "--sink", f"parquet:{tmp_path / 'lake'}"]
    ran = run_cli("export", *cluster, *options)
    assert ran.exit_code == 0
    assert ran.err == "" if "quiet" in setting else events(ran.err)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_is_shown_on_demand_only(run_cli: Run, cluster: list[str], tmp_path: Path, log_format: str) -> None:
    sink = ["--sink", f"parquet:{tmp_path / 'lake'}", "--sink", "parqet:x", "--log-format", log_format]
    plain, verbose = run_cli("export", *cluster, *sink), run_cli("export", *cluster, *sink, "-v")
    assert plain.exit_code == verbose.exit_code == 2
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last)" in verbose.err


def test_no_name_of_the_cluster_breaks_a_line_or_reaches_the_terminal(
    run_cli: Run, cluster: list[str], tmp_path: Path
) -> None:
    ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "--database", "\x1bc\ny\u202e")
    assert ran.exit_code == 2
    assert r'"\x1bc\ny\u202e"' in ran.err
    assert "\x1b" not in ran.err


def test_a_bug_is_told_in_one_line(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("of a\nkind")

    monkeypatch.setattr("crdbexport.cli.streams._described", broken)
    ran = run_cli("streams", "--json")
    assert (ran.exit_code, ran.out) == (1, "")
    assert ran.err.startswith("error: a bug in crdbexport: ZeroDivisionError: of a kind; ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("fails", [False, True])
def test_no_secret_is_said_or_written(
    run_cli: Run,
    serve: Callable[[Sandbox], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fails: bool,
) -> None:
    app = Remembering(World(2, 2), password="another" if fails else CANARY)
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", CANARY)
    cluster = ["--url", serve(app), "--cluster", "c1", "--username", "demo"]
    sinks = ["--sink", f"parquet:{tmp_path / 'lake'}", "--sink", f"jsonl:{tmp_path / 'lines'}"]
    ran = run_cli("export", *cluster, *sinks, "-vv", "--report", str(tmp_path / "report.json"))
    assert ran.exit_code == (4 if fails else 0)
    secrets = [CANARY, *app.sessions]
    assert len(secrets) == (1 if fails else 2)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= (3 if fails else 18)
    told = (ran.out + ran.err).encode()
    assert told
    assert not [each for each in (told, *written) for secret in secrets if secret.encode() in each]


class Remembering(Sandbox):
    """Keeps every session that it hands out."""

    def __init__(self, world: World, password: str) -> None:
        super().__init__(world, password=password)
        self.sessions: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def heard(message: Any) -> None:
            if b'"session"' in message.get("body", b""):
                self.sessions.append(json.loads(message["body"])["session"])
            await send(message)

        await super().__call__(scope, receive, heard)


def test_the_log_of_other_libraries_is_left_alone(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    assert run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "-vv").exit_code == 0
    assert (list(root.handlers), root.level) == (handlers, level)
    assert "httpx" in sys.modules
