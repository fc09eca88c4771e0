"""The kit with which authors of sinks test them (extra `testing`).

    conformance.py      what an author writes: `SinkConformance`, and what a sink can declare: `Capabilities`
    samples.py          runs, and records of every stream with a valid envelope
    faults.py           sinks around a sink that fail, stop or watch it
    harness.py          feeds a sink through a real lane, and compares what its readers see
    children.py         processes that are killed, have no room to write, or no network (`offline.py`); `fork_server.py`
                        forks them, `errands.py` and `delivery.py` are what they are told to do
    check.py            what a check is; the checks stand by class in `checks_*.py`
    runner.py           all checks, and running them without pytest
    builtin.py          the built-in sinks under test
    pytest_plugin.py    what pytest loads by itself: tiny, for it comes to every project on the interpreter

Names are loaded on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crdbexport.testing.conformance import Capabilities, SinkConformance
    from crdbexport.testing.faults import FailingSink
    from crdbexport.testing.samples import records, sample_run

_HOMES = {
    "Capabilities": "conformance",
    "SinkConformance": "conformance",
    "FailingSink": "faults",
    "records": "samples",
    "sample_run": "samples",
}

__all__ = ["Capabilities", "FailingSink", "SinkConformance", "records", "sample_run"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
