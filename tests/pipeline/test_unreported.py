"""An attempt that dies between its last commit and its report: the next one tells what is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RunReport, Sink, SinkError
from crdbexport.pipeline.state import RunState


class Killed(BaseException):
    """In the place of a signal that nobody can catch."""


@pytest.mark.slow
def test_a_report_that_does_not_know_of_the_last_commit_is_made_anew(
    export: Callable[..., RunReport], url: str, offering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mendable(Sink):
        broken = True

        def write(self) -> None:
            if self.broken:
                raise SinkError("the target is down")

    def die(*_: object, **__: object) -> None:
        raise Killed

    settings = {"sinks": {"mine": {"type": "mendable"}}, "call": offering(mendable=Mendable)}
    assert export(url, **settings).exit_code == 5
    Mendable.broken = False
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunState, "keep_report", die)
        export(url, **settings)

    report = export(url, **settings)

    assert (report.exit_code, report.error) == (0, None)
    assert [sink.status for sink in report.sinks] == ["committed"]
    assert not (tmp_path / "state/runs/c1.r1/spool").exists()
    assert export(url, **settings) == report
