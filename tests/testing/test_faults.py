"""Sinks that fail when they are told to, for authors and for the kit itself."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from crdbexport import Batch, Outcome, Receipt, Sink, SinkBusyError, SinkError
from crdbexport.testing import FailingSink, records, sample_run
from crdbexport.testing.faults import KilledInCommit
from tests.testing.good_sinks import GoodSink

RUN = sample_run()
OUTCOME = Outcome(complete=True, gaps=(), coverage={}, rows={})
BATCH = Batch("tables", 0, records("tables", 2))


@pytest.fixture
def good(tmp_path: Path) -> GoodSink:
    return GoodSink(GoodSink.Config(path=tmp_path))


def published(good: GoodSink) -> int:
    return len(list(good.config.path.glob("*.json")))


def test_the_named_call_fails_and_no_other(good: GoodSink) -> None:
    sink = FailingSink(good, {"write": 2})
    sink.open(RUN)
    sink.write(BATCH, RUN)
    with pytest.raises(SinkError, match="call 2 of `write` was made to fail"):
        sink.write(BATCH, RUN)
    sink.write(BATCH, RUN)
    assert len(good.rows["tables"]) == 4


def test_a_call_that_fails_before_never_reaches_the_sink(good: GoodSink) -> None:
    sink = FailingSink(good, {"commit": 1})
    sink.open(RUN)
    with pytest.raises(SinkError):
        sink.commit(RUN, OUTCOME)
    assert published(good) == 0
    receipt = sink.commit(RUN, OUTCOME)
    assert receipt is not None
    assert published(good) == 1


def test_a_call_that_fails_after_was_done_by_the_sink(good: GoodSink) -> None:
    sink = FailingSink(good, {"commit": 1}, after=True)
    sink.open(RUN)
    with pytest.raises(SinkError):
        sink.commit(RUN, OUTCOME)
    assert published(good) == 1


def test_the_error_can_be_chosen(good: GoodSink) -> None:
    sink = FailingSink(good, {"open": 1}, error=SinkBusyError("later"))
    with pytest.raises(SinkBusyError, match="later"):
        sink.open(RUN)


def test_it_looks_like_the_sink_that_it_fails(good: GoodSink) -> None:
    sink = FailingSink(good, {})
    assert isinstance(sink, Sink)
    assert sink.config is good.config
    assert sink.shown_target() == good.shown_target()
    assert list(sink.directories()) == list(good.directories())


class ImportsLate(GoodSink):
    """Imports a module of many calls, of its own and of others, in the commit."""

    def commit(self) -> Receipt:
        importlib.import_module("late_library")
        return super().commit()


def test_calls_of_imports_are_no_points_at_which_a_commit_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_library.py").write_text("import os, wave\nfor _ in range(100): os.getpid()\n")
    monkeypatch.syspath_prepend(tmp_path)
    counts = []
    for kind in (GoodSink, ImportsLate):
        sink = KilledInCommit(kind(kind.Config(path=tmp_path / kind.__name__)))
        sink.open(RUN)
        sink.commit(RUN, OUTCOME)
        counts.append(sink.seen)
    assert 0 < counts[0] == counts[1]
    assert "late_library" in sys.modules
