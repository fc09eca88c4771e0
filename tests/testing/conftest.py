"""What defective sinks leave in the process is taken back."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.rude_sinks import LeavesAFileOpen, LeavesAThread


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a sink does to the process ends with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    LeavesAThread.over.clear()
    environment = dict(os.environ)
    with warnings.catch_warnings():
        yield
    os.environ.clear()
    os.environ.update(environment)
    LeavesAThread.over.set()
    while LeavesAFileOpen.opened:
        os.close(LeavesAFileOpen.opened.pop())
