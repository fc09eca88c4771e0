"""Plugins that tell every secret of a run wherever they can: it stands in nothing that the run tells or keeps."""

from __future__ import annotations

import functools
import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

import crdbexport
from crdbexport import ExportConfig, RecordRefusedError, Sink, SinkConfig
from crdbexport.cli import logs
from crdbexport.config import Secret
from crdbexport.redaction import Redaction
from crdbexport.retry import RetryPolicy
from tests.canaries import PASSWORD, Canaries, shapes_of
from tests.security.conftest import Install

Run = Callable[..., Any]

WEBHOOK_SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSByZWNlaXZlciwgbG9uZw=="
MASK_KEY = 'mask/key "0123456789" abcdef'
HOOK_KEY = "T0KEN/0123456789abcdefXYZ?key=f3dcba9876543210"
PLACES = (
    "preflight",
    "open",
    "write",
    "refuse",
    "strict",
    "commit",
    "abort",
    "location",
    "observer",
    "transform",
    "log",
)

LEAKS = """
    import logging
    from crdbexport import Artifact, Receipt, RecordRefusedError, Sink, SinkConfig, Transform, hookimpl
    from leaks_knows import everything, where

    def leak(place):
        if place == where:
            try:
                raise ValueError(f"cause: {everything()}")
            except ValueError as cause:
                raise OSError(f"leak at {place}: {everything()}", {"args": everything()}) from cause

    class Leaks(Sink):
        class Config(SinkConfig):
            dsn: str

        def preflight(self):
            leak("preflight")

        def open(self):
            leak("open")

        def write(self, batch):
            leak("write")
            if where == "log":
                logging.getLogger("crdbexport.leaks").warning("leak %s", everything(), extra={"said": [everything()]})
            if where in ("refuse", "strict"):
                raise RecordRefusedError(batch.data.column("record_id").to_pylist()[:1], f"leak: {everything()}")
            if where == "abort":
                raise OSError("broken")

        def commit(self):
            leak("commit")
            return Receipt((Artifact(everything() if where == "location" else "somewhere"),))

        def abort(self):
            leak("abort")

    class Drops(Transform):
        def apply(self, batch):
            leak("transform")
            return batch.data

    @hookimpl
    def crdbexport_register_sinks(register):
        register("leaks", Leaks)

    @hookimpl
    def crdbexport_register_transforms(register):
        register("drops", Drops)

    @hookimpl
    def crdbexport_run_started(run):
        leak("observer")
"""


class Accepts:
    """A receiver of webhooks that takes everything."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await Response()(scope, receive, send)


@pytest.fixture
def everything(canaries: Canaries) -> Callable[[], str]:
    """All that is secret, in all its shapes, as far as it is known by now."""

    def told() -> str:
        secrets = canaries.secrets(WEBHOOK_SECRET, MASK_KEY, HOOK_KEY)
        return " | ".join(shape.decode() for secret in sorted(secrets) for shape in sorted(shapes_of(secret)))

    return told


@pytest.fixture
def command(
    cluster: list[str], serve: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: Any
) -> list[str]:
    """An export with a secret of every kind."""
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", WEBHOOK_SECRET)
    monkeypatch.setenv("CRDBEXPORT_MASK_KEY", MASK_KEY)
    settings = tmp_path_factory.mktemp("etc") / "settings.toml"
    hook = f"{serve(Accepts())}/{HOOK_KEY}"
    settings.write_text(
        f"""
        [sinks]
        lake = {{ type = "parquet", path = "{tmp_path / "lake"}" }}
        hook = {{ type = "webhook", url = "{hook}" }}
        leaks = {{ type = "leaks", dsn = "https://me:s3cr3t-of-target@db/x?y=z" }}
        [[transforms]]
        type = "drops"
        [[transforms]]
        type = "mask"
        fields = ["grantee"]
        """
    )
    report = ["--report", str(tmp_path / "report.json"), "--run-id", "r1"]
    return ["export", *cluster, "--config", str(settings), *report]


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("where", PLACES)
def test_no_command_tells_or_keeps_what_a_plugin_gives_away(
    install: Install,
    everything: Callable[[], str],
    command: list[str],
    run_cli: Run,
    canaries: Canaries,
    tmp_path: Path,
    where: str,
    log_format: str,
) -> None:
    install("leaks", LEAKS, everything=everything, where=where)
    strict = ["--strict"] if where == "strict" else []
    ran = run_cli(*command, *strict, "-vv", "--log-format", log_format)
    assert ("***" in ran.err) == (where not in ("location", "refuse"))
    assert ("Traceback" in ran.err) == (where in ("preflight", "transform"))
    canaries.assert_hidden(tmp_path, ran.out + ran.err, WEBHOOK_SECRET, MASK_KEY, HOOK_KEY, "s3cr3t-of-target")
    if log_format == "json":
        assert all(json.loads(line) for line in ran.err.splitlines())
    report = (tmp_path / "report.json").read_text()
    assert "***" in report if where in {*PLACES} - {"refuse", "abort", "observer", "log"} else json.loads(report)
    if where == "refuse":
        [letters] = (tmp_path / "state").rglob("dead_letters/*.jsonl")
        assert b'"reason":"leak: ***' in letters.read_bytes()
    for shown in (["runs", "list"], ["runs", "show", "r1"], ["runs", "show", "r1", "--json"]):
        canaries.assert_hidden(tmp_path, run_cli(*shown).out, HOOK_KEY)


@pytest.mark.slow
def test_what_everything_tells_is_all_there_is(
    install: Install, everything: Callable[[], str], command: list[str], run_cli: Run, canaries: Canaries
) -> None:
    """The canaries that the other tests look for were there to be given away."""
    seen: list[str] = []
    install("leaks", LEAKS, everything=lambda: seen.append(everything()) or "", where="commit")
    assert run_cli(*command).exit_code == 3
    for secret in (PASSWORD, WEBHOOK_SECRET, MASK_KEY, HOOK_KEY, *canaries.sessions):
        assert secret in seen[-1]
    assert len(canaries.sessions) == 1


class Tells(Sink):
    """Fails with all that it was told, as drivers of databases do."""

    class Config(SinkConfig):
        dsn: str
        token: Secret

    def write(self, batch: Any) -> None:
        raise RuntimeError(f"no connection to {self.config.dsn} with {self.config.token.reveal()}")


class TellsOfRecords(Tells):
    def write(self, batch: Any) -> None:
        raise RecordRefusedError([], f"no room at {self.config.dsn} with {self.config.token.reveal()}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Tells, TellsOfRecords])
def test_a_library_run_keeps_secrets_out_of_its_report_and_files_and_leaves_the_log_alone(
    url: str, settings: dict[str, Any], canaries: Canaries, tmp_path: Path, kind: type[Tells]
) -> None:
    class Plugin:
        @crdbexport.hookimpl
        def crdbexport_register_sinks(self, register: Any) -> None:
            register("tells", kind)

    root = logging.getLogger()
    before = list(root.handlers), root.level, root.filters, logging.lastResort, logging.getLogger("crdbexport").handlers
    sinks = {"tells": {"type": "tells", "target": "postgres://me:pw-of-db@db/x", "token": Secret("t0ken-of-db")}}
    config = ExportConfig(**{**settings, "url": (url,), "sinks": sinks, "report": str(tmp_path / "report.json")})
    report = crdbexport.export(config, plugins=[("mine", Plugin())])
    assert before == (
        list(root.handlers), root.level, root.filters, logging.lastResort, logging.getLogger("crdbexport").handlers
    )  # fmt: skip
    assert report.sinks[0].target == "postgres://db/x"
    if kind is Tells:
        assert report.sinks[0].error == "RuntimeError: no connection to postgres://me:***@db/x with ***"
    else:
        assert report.exit_code == 3
        assert any(b"no room" in path.read_bytes() for path in tmp_path.rglob("dead_letters/*"))
    canaries.assert_hidden(tmp_path, report.to_json().decode(), "pw-of-db", "t0ken-of-db")


def test_a_redaction_that_is_given_learns_the_secrets_of_the_run(export: Run, url: str, canaries: Canaries) -> None:
    redaction = Redaction()
    assert export(url, call={"redaction": redaction}).exit_code == 0
    [session] = canaries.sessions
    assert redaction(f"{session} {PASSWORD}") == "*** ***"


def test_the_command_to_run_again_shows_no_key_of_a_webhook(
    run_cli: Run, canaries: Canaries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", WEBHOOK_SECRET)
    address = ["--url", "http://127.0.0.1:1", "--cluster", "c1", "--no-login", "--timeout", "1", "--run-id", "r1"]
    policy = functools.partial(RetryPolicy, base_seconds=0.001)
    monkeypatch.setattr("crdbexport.cluster.connect.RetryPolicy", policy)
    ran = run_cli("export", *address, "--sink", f"webhook:https://hooks.example.com/{HOOK_KEY}")
    assert ran.exit_code == 5
    assert "run it again with:\n  crdbexport export --url http://127.0.0.1:1" in ran.err
    assert "webhook:https://hooks.example.com/***" in ran.err
    canaries.assert_hidden(tmp_path, ran.err, HOOK_KEY)


def test_the_journal_holds_neither_the_password_nor_the_options_of_sinks(export: Run, url: str, tmp_path: Path) -> None:
    sinks = {"lake": {"type": "parquet", "target": str(tmp_path / "lake"), "row_group_rows": 4711}}
    export(url, sinks=sinks, keep_spool=True)
    [journal] = (tmp_path / "state").rglob("journal.db")
    kept = "\n".join(sqlite3.connect(journal).iterdump())
    assert '"cluster":"c1"' in kept.replace("\\", "") or b"c1".hex().upper() in kept
    assert "4711" not in kept
    assert b"4711".hex() not in kept


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_another_library_warns_of_has_the_form_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    redaction = Redaction()
    logs.set_up(log_format, 0, redaction)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # As it is where there is no test.
    other_library = logging.getLogger("some.library")
    redaction.learn("s3cret-token")
    other_library.info("nobody asked for this")
    other_library.warning("bad token %s\x1b[2J\nerror: forged", "s3cret-token")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "s3cret" not in err
    assert "\x1b" not in err
    message = json.loads(err)["message"] if log_format == "json" else err
    assert "bad token ***" in message
