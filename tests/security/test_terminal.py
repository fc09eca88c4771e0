"""Whatever names the cluster, the operator or a plugin may choose: a line stays one line, and no terminal obeys it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from crdbexport.cli.progress import showing
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World
from tests.canaries import PASSWORD
from tests.security.conftest import Install

Run = Callable[..., Any]

# Escape sequences of seven and eight bits, a bell, a direction override, line breaks of every kind, markup.
HOSTILE = "evil\x1b[2J\x9b31m\x07\u202eabc\u2028\r\nerror: forged\x0b[red]\x85{0}%s"
# As a command line is read that is not UTF-8.
NOT_EVEN_TEXT = HOSTILE + "\udc9b"
FORGED = re.compile(r"^(error|warning|info): forged", re.MULTILINE)

PLUGIN = """
    from crdbexport import RecordRefusedError, Sink, SinkConfig, hookimpl
    from evil_knows import hostile

    class Evil(Sink):
        __doc__ = hostile

        class Config(SinkConfig):
            path: str = hostile

        def write(self, batch):
            if self.config.path == "refuse":
                raise RecordRefusedError(batch.data.column("record_id").to_pylist()[:1], hostile)
            raise ValueError(hostile, {hostile: hostile}) from OSError(5, hostile, hostile)

    @hookimpl
    def crdbexport_register_sinks(register):
        register(hostile, Evil)
        register("evil", Evil)

    @hookimpl
    def crdbexport_run_started(run):
        raise ValueError(hostile)
"""


def assert_harmless(text: str) -> None:
    assert {each for each in text if not each.isprintable()} <= {"\n"}
    assert not FORGED.search(text)


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, site: Path, install: Install) -> Iterator[None]:
    """Databases and tables of hostile names, and a plugin whose every word is hostile."""
    monkeypatch.setattr("crdbexport.sandbox.hard_names.HARD_NAMES", (HOSTILE, "plain"))
    install("evil", PLUGIN, hostile=HOSTILE)
    broken = site / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: bro\x1b[2Jken\x9b\nVersion: 1\x1b]0;x\x07\n")
    (broken / "entry_points.txt").write_text("[crdbexport]\nbro\x1b[31mken = no_such_module_\u202e\n")
    yield


@pytest.fixture
def cluster(serve: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that reach a cluster some of whose parts answer with words of their own."""
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", PASSWORD)
    refused = [
        Rule(
            f"/api/v2/databases/{quote(HOSTILE, safe='')}/grants", Status(403, {"Retry-After": "x"}, HOSTILE.encode())
        ),
        Rule("/api/v2/databases/plain/grants", Status(404, {}, HOSTILE.encode())),
    ]
    url = serve(Sandbox(World(1, 1, hostile_names=True), faults=Faults(rules=refused)))
    return ["--url", url, "--cluster", HOSTILE, "--username", "demo"]


@pytest.fixture
def sinks(tmp_path: Path) -> list[str]:
    """Sinks under a hostile name, in a hostile directory, and two that speak for themselves."""
    settings, lake = tmp_path / "settings.toml", tmp_path / HOSTILE
    settings.write_text(
        "[sinks]\n"
        f'"s{json.dumps(HOSTILE)[1:-1]}" = {{ type = "jsonl", path = {json.dumps(str(lake))} }}\n'
        'fails = { type = "evil" }\nrefuses = { type = "evil", path = "refuse" }\n'
    )
    return ["--config", str(settings), "--run-id", HOSTILE]


SAYING = [["-vv"], ["-vv", "--log-format", "json"], ["-q"], ["--log-format", "json"], []]


@pytest.mark.slow
@pytest.mark.parametrize("how", SAYING, ids=" ".join)
def test_no_export_is_obeyed_by_a_terminal(run_cli: Run, cluster: list[str], sinks: list[str], how: list[str]) -> None:
    ran = run_cli("export", *cluster, *sinks, *how)
    assert (ran.exit_code, ran.out) == (3, "")
    assert_harmless(ran.err)
    assert "forged" in ran.err
    if "json" in how:
        assert any(HOSTILE.splitlines()[0] in json.loads(line)["message"] for line in ran.err.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["runs", "list"],
        ["runs", "list", "--json"],
        ["runs", "show", HOSTILE],
        ["runs", "show", HOSTILE, "--json"],
        ["runs", "show", NOT_EVEN_TEXT],
        ["runs", "deliver", HOSTILE, "--sink", "again=evil"],
        ["runs", "deliver", NOT_EVEN_TEXT, "--sink", "again=evil"],
        ["runs", "gc", HOSTILE, "--keep", "1", "--dry-run"],
        ["verify", HOSTILE],
        ["verify", HOSTILE, "--json"],
        ["verify", NOT_EVEN_TEXT],
    ],
    ids=lambda command: " ".join(each if each.isprintable() else "HOSTILE" for each in command),
)
def test_no_look_at_what_was_left_is_obeyed_by_a_terminal(
    run_cli: Run,
    cluster: list[str],
    sinks: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: list[str],
) -> None:
    assert run_cli("export", *cluster, *sinks).exit_code == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / HOSTILE / "tables" / f"{HOSTILE}.jsonl").touch()
    (tmp_path / "state" / "runs" / HOSTILE).mkdir()
    ran = run_cli(*command)
    assert_harmless(ran.out + ran.err)
    assert "evil" in ran.out + ran.err
    assert json.loads(ran.out) if "--json" in command else ran.exit_code in (0, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "command",
    [
        ["plugins", "list"],
        ["plugins", "list", "--json"],
        ["plugins", "show", "evil"],
        ["plugins", "show", HOSTILE],
        ["plugins", "show", NOT_EVEN_TEXT],
        ["streams", HOSTILE],
        ["verify", "--cluster", HOSTILE, "."],
        [HOSTILE],
        ["export", f"--{HOSTILE}"],
        ["export", "--sink", HOSTILE],
        ["export", "--sink", f"{HOSTILE}:x", "--sandbox"],
        ["export", "--sink-option", f"{HOSTILE}.x=y", "--sink", "jsonl:x"],
        ["export", "--logical-time", NOT_EVEN_TEXT, "--sandbox", "--sink", "jsonl:x"],
        ["export", "--url", f"https://node/{HOSTILE}"],
        ["export", "--url", f"https://{HOSTILE}"],
        ["export", "--config", f"/{NOT_EVEN_TEXT}"],
        ["export", "--state-dir", f"/dev/null/{NOT_EVEN_TEXT}", "--sandbox", "--sink", "jsonl:x"],
    ],
    ids=lambda command: " ".join(each if each.isprintable() else "HOSTILE" for each in command),
)
@pytest.mark.parametrize("verbose", [False, True])
def test_no_answer_to_hostile_arguments_is_obeyed_by_a_terminal(
    run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], verbose: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_cli(*command, *(["-v"] if verbose and command[0] == "export" else []))
    assert ran.out + ran.err
    assert_harmless(ran.out + ran.err)
    assert ran.exit_code in (0, 2)


@pytest.mark.parametrize("how", [[], ["-v"], ["-vv", "--log-format", "json"]], ids=" ".join)
def test_no_check_is_obeyed_by_a_terminal(run_cli: Run, cluster: list[str], sinks: list[str], how: list[str]) -> None:
    ran = run_cli("check", *cluster, *sinks[:2], *how)
    assert ran.exit_code == 3
    assert_harmless(ran.out + ran.err)
    assert "forged" in ran.out


def test_the_progress_display_takes_no_name_for_markup_or_control(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    screen, console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(
        "rich.console.Console",
        lambda **_: console(file=screen, force_terminal=True, width=400, color_system="standard"),
    )
    lane = SimpleNamespace(sink=SimpleNamespace(name=HOSTILE), batches_done=0, status=None)
    with showing(wanted=True) as watch:
        assert watch is not None
        watch(SimpleNamespace(reading=None, lanes=[lane], spool=SimpleNamespace(batches=[1])))  # type: ignore[arg-type]
    drawn = screen.getvalue()
    assert r"evil\x1b[2J\x9b31m\x07\u202eabc\u2028\r error: forged\x0b[red]\x85{0}%s" in drawn
    # What is left after the display's own sequences is text.
    assert_harmless(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", drawn))
