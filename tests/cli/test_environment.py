"""A variable that looks like one of ours, and is none, is warned about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crdbexport.cli.environment import KNOWN
from crdbexport.cli.options import CLUSTER_OPTIONS, COMMON_OPTIONS, RUN_OPTIONS, SELECTION_OPTIONS, SINK_OPTIONS
from tests.conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def said(run_cli: Run, monkeypatch: pytest.MonkeyPatch, cluster: list[str], tmp_path: Path) -> Callable[..., str]:
    """What an export says that ends before it has read anything, with this variable in its environment."""

    def run(name: str, *more: str) -> str:
        monkeypatch.setenv(name, "x")
        ran = run_cli("export", *cluster, "--sink", f"parquet:{tmp_path / 'lake'}", "--database", "nope", *more)
        monkeypatch.delenv(name)
        assert ran.exit_code == 2
        return ran.err

    return run


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("CRDBEXPORT_PASSWROD", "CRDBEXPORT_PASSWORD"),
        ("CRDBEXPORT_USER_NAME", "CRDBEXPORT_USERNAME"),
        ("CRDBEXPORT_ALLOW_GAP", "CRDBEXPORT_ALLOW_GAPS"),
        ("CRDBEXPORT_SINKS", "CRDBEXPORT_SINK"),
        ("CRDBEXPORT_STATEDIR", "CRDBEXPORT_STATE_DIR"),
        ("CRDBEXPORT_WEBHOOK_SECRETS", "CRDBEXPORT_WEBHOOK_SECRET"),
        ("CRDBEXPORT_LOAD_PLUGIN", "CRDBEXPORT_LOAD_PLUGINS"),
    ],
)
def test_a_misspelt_variable_is_warned_about_with_the_nearest_name(
    said: Callable[..., str], misspelt: str, meant: str
) -> None:
    assert f"warning: the variable {misspelt} is not read; did you mean {meant}?\n" in said(misspelt)


@pytest.mark.parametrize("name", ["CRDBEXPORT_MYPLUGIN_TOKEN", "CRDB_EXPORT_PASSWORD", "CRDBEXPORT_MASK_KEY"])
def test_what_may_belong_to_others_is_nobodys_business(said: Callable[..., str], name: str) -> None:
    assert "is not read" not in said(name)


def test_a_variable_that_an_option_names_is_read_by_its_sink(
    said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", "x")
    near = "CRDBEXPORT_WEBHOOK_SECRET_2"
    hook = ["--sink", "webhook:http://127.0.0.1:1/", "--sink-option", f"webhook.secret_env={near}"]
    assert "is not read" in said(near)
    assert "is not read" not in said(near, *hook)


def test_quiet_is_quiet(said: Callable[..., str]) -> None:
    assert "is not read" not in said("CRDBEXPORT_PASSWROD", "-q")


def test_every_option_of_the_command_line_is_known() -> None:
    import click

    groups = (CLUSTER_OPTIONS, SELECTION_OPTIONS, SINK_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)

    def command() -> None: ...

    for each in (each for group in groups for each in group):
        each(command)
    variables = {option.envvar for option in click.command(command).params if isinstance(option, click.Option)}
    assert len(variables) > 25
    assert variables <= KNOWN
