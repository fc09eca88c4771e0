"""Who lists the plugins that may come in is told where the list does not say what it seems to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.errors import PluginError
from crdbexport.plugin_manager import load_plugins
from tests.security.conftest import Install

LEAVES_A_TRACE = "from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()\n"


@pytest.fixture(autouse=True)
def installed(install: Install) -> None:
    install("kafka", LEAVES_A_TRACE)
    install("snowflake", LEAVES_A_TRACE)


def imported(site: Path) -> set[str]:
    return {path.stem.removesuffix("_plugin") for path in site.glob("*.imported")}


@pytest.mark.parametrize(
    ("names", "hint"),
    [("kafk", "did you mean 'kafka'?"), ("kafka,snow-flake", "did you mean 'snowflake'?"), ("other", "installed: ")],
)
def test_a_plugin_to_load_that_is_not_installed_is_refused_before_any_is_imported(
    monkeypatch: pytest.MonkeyPatch, site: Path, names: str, hint: str
) -> None:
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", names)
    with pytest.raises(PluginError, match="CRDBEXPORT_LOAD_PLUGINS: no plugin") as refusal:
        load_plugins()
    assert hint in str(refusal.value)
    assert imported(site) == set()


def test_a_plugin_to_block_that_looks_misspelt_is_refused(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "kaffka")
    with pytest.raises(PluginError, match=r"CRDBEXPORT_BLOCK_PLUGINS: no plugin \"kaffka\"; did you mean 'kafka'\?"):
        load_plugins()
    assert imported(site) == set()


def test_plugins_may_be_blocked_in_advance(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "not-yet-there,kafka,kaffka")
    load_plugins()
    assert imported(site) == {"snowflake"}


def test_a_list_that_does_not_count_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", "no-such-plugin")
    load_plugins(third_party=False)
    assert imported(site) == set()


def test_a_plugin_that_is_not_listed_is_shown_and_not_imported(
    run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, site: Path
) -> None:
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", "snowflake")
    told = json.loads(run_cli("plugins", "list", "--json").out)
    states = {each["name"]: each["state"] for each in told if each["name"] in ("builtin", "kafka", "snowflake")}
    assert states == {"builtin": "loaded", "kafka": "not allowed", "snowflake": "loaded"}
    assert imported(site) == {"snowflake"}
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", "snowflaky")
    ran = run_cli("plugins", "list")
    assert (ran.exit_code, ran.out) == (2, "")
    assert "did you mean 'snowflake'?" in ran.err
