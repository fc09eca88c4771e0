"""A full disk ends a run with exit code 5, says where, and leaves nothing that a reader could take for a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

Arguments = Callable[..., list[str]]


@pytest.fixture
def app() -> Sandbox:
    return Sandbox(World(4, 12), password="s3cret-canary")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_full_disk_in_the_lake_publishes_nothing(
    app: Sandbox,
    serve: Callable[[Sandbox], str],
    run_cli: Callable[..., Any],
    arguments: Arguments,
    small_disk: Path,
    kind: str,
) -> None:
    url, lake = serve(app), small_disk / "lake"
    ran = run_cli(*arguments(url, "--run-id", "r1", sink=f"lake={kind}:{lake}"))
    assert (ran.exit_code, ran.out) == (5, "")
    assert str(lake) in ran.err
    assert "No space left on device" in ran.err
    assert "free space, then run the same command" in ran.err
    assert "--run-id r1" in ran.err
    assert app.logouts == 1
    assert not (lake / "_manifests").exists()
    assert not [path for path in lake.rglob("*") if path.is_file() and "_staging" not in path.parts]
    (small_disk / "ballast").unlink()
    requests = app.hits.total()
    assert run_cli(*arguments(url, "--run-id", "r1", sink=f"lake={kind}:{lake}")).exit_code == 0
    assert len(list((lake / "_manifests").iterdir())) == 1
    assert app.hits.total() == requests


@pytest.mark.slow
def test_a_full_disk_in_the_lake_spares_the_other_sink(
    app: Sandbox,
    serve: Callable[[Sandbox], str],
    run_cli: Callable[..., Any],
    arguments: Arguments,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    ran = run_cli(
        *arguments(serve(app), "--sink", f"jsonl:{tmp_path / 'lines'}", sink=f"lake=parquet:{small_disk}/lake")
    )
    assert (ran.exit_code, ran.out) == (3, "")
    assert "sink lake failed" in ran.err
    assert len(list((tmp_path / "lines/_manifests").iterdir())) == 1
    assert not (small_disk / "lake/_manifests").exists()


def test_a_disk_that_has_no_room_for_the_state_ends_a_run_before_it_begins(
    app: Sandbox, serve: Callable[[Sandbox], str], run_cli: Callable[..., Any], arguments: Arguments, small_disk: Path
) -> None:
    ran = run_cli(*arguments(serve(app), "--run-id", "r1", "--state-dir", str(small_disk / "state")))

    assert (ran.exit_code, ran.out) == (5, "")
    assert str(small_disk / "state") in ran.err
    assert "free space" in ran.err
    assert "run the same command" in ran.err
    assert app.hits.total() == 0


@pytest.mark.slow
def test_a_disk_that_fills_with_the_state_publishes_nothing_and_keeps_what_was_answered(
    app: Sandbox,
    serve: Callable[[Sandbox], str],
    run_cli: Callable[..., Any],
    arguments: Arguments,
    small_disk: Path,
    enlarge: Callable[[Path, int], None],
    lake: Path,
) -> None:
    enlarge(small_disk, 400)
    command = arguments(serve(app), "--run-id", "r1", "--state-dir", str(small_disk / "state"))

    ran = run_cli(*command)

    assert (ran.exit_code, ran.out) == (5, "")
    assert str(small_disk / "state") in ran.err
    assert "free space" in ran.err
    assert "--run-id r1" in ran.err
    assert not lake.exists() or not list(lake.glob("_manifests/*"))
    assert app.logouts == 1
    answered = {path for path, hits in app.hits.items() if "/tables/" in path}
    enlarge(small_disk, 32_768)
    app.hits.clear()
    assert run_cli(*command).exit_code == 0
    assert len(list((lake / "_manifests").iterdir())) == 1
    again = {path for path in app.hits if path in answered}
    # Eight are in flight, and a few more take their places before the failure has gone round.
    assert len(again) <= 12 < len(answered), "what was answered, but for what was in flight, is not asked for again"
