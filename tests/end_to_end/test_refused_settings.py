"""Wrong settings end with exit code 2 and a line that says which and what now, before a single request is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

Refused = Callable[..., str]
Arguments = Callable[..., list[str]]


@pytest.fixture
def app() -> Sandbox:
    return Sandbox(World(2, 2), password="s3cret-canary")


@pytest.fixture
def url(app: Sandbox, serve: Callable[[Sandbox], str]) -> str:
    return serve(app)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--sink", "parqet:./x"], "no sink type 'parqet'; did you mean 'parquet'?"),
        (["--sink", "=x"], "expected [NAME=]TYPE[:TARGET]"),
        (["--sink", "other=parquet"], "sink other needs a path: --sink parquet:PATH"),
        (["--sink", "lake=jsonl:./x"], "two sinks are named 'lake'"),
        (["--sink-option", "nothing.path=x"], "no sink is named 'nothing'; there is: lake"),
        (["--sink-option", "lake.compression_level=high"], "sink lake (parquet): compression_level: Expected `int`"),
        (
            ["--sink-option", "lake.compression_level=99"],
            "sink lake (parquet): compression_level: Expected `int` <= 19",
        ),
        (["--sink-option", "lake.compresion_level=3"], "did you mean 'compression_level'?"),
        (["--sink-option", "lake"], "expected NAME.KEY=VALUE"),
        (["--sink-option", "lake.path=elsewhere"], "sink lake is given 'path' twice"),
        (["--stream", "tabels"], "Invalid value for '--stream': 'tabels' is not one of"),
        (["--include", "defaults"], "Invalid value for '--include': 'defaults' is not one of"),
        (
            ["--include", "zone_config", "--stream", "columns"],
            "--include zone_config: a field of the stream tables, which is not exported; add --stream tables",
        ),
        (["--allow-gaps", "whatever"], "Invalid value for '--allow-gaps': 'whatever' is not one of"),
        (["--logical-time", "yesterday"], "give a date (2026-01-31) or a time"),
        (["--logical-time", "2026-02-30"], "give a date (2026-01-31) or a time"),
        (["--dialect", "postgres"], "Invalid value for '--dialect'"),
        (["--concurrency", "0"], "concurrency: Expected `int` >= 1"),
        (["--concurrency", "many"], "Invalid value for '--concurrency'"),
        (["--max-rps", "0"], "max_rps: Expected `float` > 0"),
        (["--timeout", "-1"], "timeout: Expected `float` > 0"),
        (["--run-id", " "], "--run-id is empty"),
        (["--no-login"], "--no-login goes with neither --username nor CRDBEXPORT_SESSION"),
        (["--sandbox"], "--sandbox brings its own cluster"),
        (["--databse", "x"], "No such option '--databse'"),
        (["surplus"], "unexpected extra argument"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml: cannot be read (No such file or directory)"),
        (["--password-file", "/no/such/file"], "--password-file /no/such/file: cannot be read"),
        (["--ca-cert", "/no/such/file"], "--ca-cert /no/such/file: not a readable PEM certificate"),
        (["--sink", "a=jsonl:-", "--sink", "b=jsonl:-"], "sink a and sink b would mix on standard output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_refused_before_the_first_request(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, more: list[str], reason: str
) -> None:
    assert reason in refused(2, *arguments(url, *more))
    assert app.hits.total() == 0


def test_the_report_and_a_sink_do_not_mix_on_standard_output(
    app: Sandbox, url: str, run_cli: Callable[..., Any], arguments: Arguments
) -> None:
    ran = run_cli(*arguments(url, "--report", "-", sink="jsonl:-"))
    assert (ran.exit_code, json.loads(ran.out)["exit_code"]) == (2, 2)
    assert "sink jsonl and --report - would mix on standard output" in ran.err
    assert app.hits.total() == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "no cluster to read: give --url URL and --cluster NAME, or --sandbox"),
        (["--url", "http://127.0.0.1:1"], "no name for the cluster: give --cluster NAME"),
        (["--url", "http://127.0.0.1:1", "--cluster", "c1"], "no credentials: give --username and CRDBEXPORT_PASSWORD"),
        (["--url", "http://127.0.0.1:1", "--cluster", "c1", "--username", "u"], 'no password for user "u"'),
        (["--url", "http://127.0.0.1:1", "--cluster", "c1", "--no-login"], "no sink: say where the records go"),
    ],
    ids=["url", "cluster", "credentials", "password", "sink"],
)
def test_what_is_missing_is_named(refused: Refused, given: list[str], reason: str) -> None:
    assert reason in refused(2, "export", *given)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (
            "http://db.example.com:8080",
            "a password or session would travel in clear; use https, or add --insecure-http",
        ),
        ("https://root:s3cret-canary@127.0.0.1:8080", "--url must not hold a user or password"),
        ("root:s3cret-canary@127.0.0.1:8080", "--url must not hold a user or password"),
        ("https://127.0.0.1:8080?token=s3cret-canary", "--url must hold neither a query nor a fragment"),
        ("127.0.0.1:8080", "not a URL of a cluster"),
        ("postgresql://127.0.0.1:26257", "not a URL of a cluster"),
        ("https://127.0.0.1:notaport", "--url: not a URL"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(
    refused: Refused, arguments: Arguments, address: str, reason: str
) -> None:
    assert reason in refused(2, *arguments(address))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('cluster = "c1"\nconcurrency = = 3\n', "not valid TOML: Invalid value (at line 2, column 15)"),
        ('[sinks.lake\ntype = "parquet"\n', "(at line 1, column 12)"),
        ("concurency = 3\n", "unknown option 'concurency'; did you mean 'concurrency'?"),
        ("sink = 'parquet:./lake'\n", "unknown option 'sink'; did you mean 'sinks'?"),
        ("sinks = 3\n", "expected tables such as [sinks.lake] with a type"),
        ("[sinks.other]\npath = 'x'\n", 'sink other needs a type, such as type = "parquet"'),
        ("[sinks.other]\ntype = 'parquet'\npth = 'x'\n", "sink other needs a path"),
        ("[sinks.other]\ntype = 'parquet'\npath = 'x'\nlevel = 3\n", "unknown option 'level'"),
        ("concurrency = 'many'\n", "concurrency: Expected `int"),
        ("log_format = 'xml'\n", "log_format: Invalid enum value 'xml'"),
        ("verbose = 'much'\n", "verbose: Expected `int"),
        ("transforms = 3\n", "transforms: Expected `array"),
        (
            "[[transforms]]\ntype = 'maks'\n[sinks.lake]\ntype = 'jsonl'\npath = '-'\n",
            "no transform 'maks'; did you mean 'mask'?",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "crdbexport.toml"
    path.write_text(text)
    assert reason in refused(2, *arguments(url, "--config", str(path), sink=""))
    assert app.hits.total() == 0


@pytest.mark.parametrize("name", ["password", "session"])
def test_a_secret_does_not_belong_in_the_file(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "crdbexport.toml"
    path.write_text(f'{name} = "s3cret-canary"\n')
    reason = refused(2, *arguments(url, "--config", str(path)))
    assert f"{name!r} does not belong in a file; set CRDBEXPORT_{name.upper()}" in reason
    assert app.hits.total() == 0


def test_an_unwritable_target_is_refused_before_the_first_request(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    reason = refused(2, *arguments(url, sink=f"lake=parquet:{tmp_path / 'file' / 'lake'}"))
    assert "sink lake: " in reason
    assert "cannot publish here: " in reason
    assert app.hits.total() == 0


def test_an_unwritable_state_directory_is_refused_before_the_first_request(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    reason = refused(2, *arguments(url, "--state-dir", str(tmp_path / "file" / "state")))
    assert "--state-dir" in reason
    assert "cannot be written" in reason
    assert app.hits.total() == 0


def test_two_sinks_do_not_share_a_directory(
    app: Sandbox, url: str, refused: Refused, arguments: Arguments, lake: Path
) -> None:
    reason = refused(2, *arguments(url, "--sink", f"lines=jsonl:{lake}/below"))
    assert f"sinks lake and lines would share {lake}/below; give each its own directory" in reason
    assert app.hits.total() == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--stream", "tables"], 'run "r1" was read with another stream'),
        (["--include", "zone_config"], 'run "r1" was read with another include'),
        (["--exclude-database", "bank"], 'run "r1" was read with another exclude_database'),
        (["--logical-time", "2020-01-01"], 'run "r1" was read with another logical_time'),
    ],
)
def test_a_run_id_does_not_change_its_settings(
    url: str, run_cli: Callable[..., Any], arguments: Arguments, more: list[str], reason: str
) -> None:
    assert run_cli(*arguments(url, "--run-id", "r1")).exit_code == 0
    again = run_cli(*arguments(url, "--run-id", "r1", *more))
    assert (again.exit_code, again.out) == (2, "")
    assert reason in again.err
    assert "another --run-id" in again.err


def test_a_committed_run_does_not_change_its_target(
    url: str, run_cli: Callable[..., Any], arguments: Arguments, lake: Path, tmp_path: Path
) -> None:
    assert run_cli(*arguments(url, "--run-id", "r1")).exit_code == 0
    again = run_cli(*arguments(url, "--run-id", "r1", sink=f"lake=parquet:{tmp_path / 'other'}"))
    assert (again.exit_code, again.out) == (2, "")
    assert f"sink lake has committed this run to parquet:{lake} already" in again.err


@pytest.mark.slow
def test_another_day_than_today_is_warned_about(url: str, run_cli: Callable[..., Any], arguments: Arguments) -> None:
    ran = run_cli(*arguments(url, "--logical-time", "2020-01-01"))
    assert ran.exit_code == 0
    assert "warning: --logical-time 2020-01-01 is not today" in ran.err
    assert "warning" not in run_cli(*arguments(url)).err
