"""The recorder and what it is made of, for the tests beside it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest


def _load(name: str) -> None:
    """Make `name` importable as the recorder imports it when it runs as a script: by its plain name."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


for each in ("scenarios", "native_records", "native_scenarios", "scrubbing", "tape", "record", "replaying"):
    _load(each)


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Plays a scenario's cassette by its name, once for all tests."""
    from record import CASSETTES, EVERY
    from replaying import replayed

    @functools.cache
    def played(name: str) -> Any:
        scenario = EVERY[name]
        return replayed(CASSETTES / scenario.form / f"{name}.yaml", tmp_path_factory.mktemp(name), scenario)

    return played
