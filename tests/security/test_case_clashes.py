"""Names that differ in case alone, on a file system that does not tell upper from lower case: nobody's run is mistaken.

Such a file system is played by names that are folded before they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RunReport
from crdbexport.errors import ConfigError
from crdbexport.file_names import file_stem
from crdbexport.pipeline.state import RunRecord, RunState

Export = Callable[..., RunReport]
NOW = datetime(2026, 3, 5, tzinfo=UTC)


def folded(cluster: str, run_id: str) -> str:
    return file_stem(cluster, run_id).casefold()


@pytest.fixture(params=["Nightly", "nightly"])
def other(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Another run than c1/nightly, whose files have the same names."""
    return ("C1", "nightly") if request.param == "nightly" else ("c1", request.param)


def test_state_of_another_run_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]
) -> None:
    monkeypatch.setattr("crdbexport.pipeline.state.file_stem", folded)
    with closing(RunState(tmp_path, "c1", "nightly")) as state:
        state.begin(RunRecord("c1", "nightly", NOW, NOW, {}))
    with (
        closing(RunState(tmp_path, *other)) as state,
        pytest.raises(ConfigError, match='run "nightly" of cluster "c1"'),
    ):
        state.begin(RunRecord(*other, NOW, NOW, {}))


@pytest.mark.slow
def test_what_another_run_published_is_not_taken_for_ones_own(
    url: str, export: Export, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]
) -> None:
    assert export(url, run_id="nightly").exit_code == 0
    lake = Path(settings["sinks"]["lake"]["target"])
    before = {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()}
    monkeypatch.setattr("crdbexport.sinks.publishing.file_stem", folded)
    report = export(url, cluster=other[0], run_id=other[1])
    assert report.exit_code == 4
    assert 'run "nightly" of cluster "c1" has the files' in (report.error or "")
    assert {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()} == before
