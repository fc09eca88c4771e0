"""The recorder and what it is made of, for the tests beside it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def _load(name: str) -> None:
    """Make `name` importable as the recorder imports it when it runs as a script: by its plain name."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


for each in ("scenarios", "scrubbing", "tape", "record"):
    _load(each)
