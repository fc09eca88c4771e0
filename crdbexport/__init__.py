"""crdbexport: everything CockroachDB's Cluster API tells about databases, tables and grants, into any number of sinks.

How to read this package, in the order in which data flows:

    cli/                arguments -> config; errors -> exit code and one line
    runner.py           builds everything and lets it work together
    cluster/            knows CockroachDB: session, dialects, extractor
    pipeline/           knows neither CockroachDB nor a format: batches, transforms, spool, lanes, report
    transforms/ sinks/  what happens to batches; `base.py` in each is what a plugin author sees
    hookspecs.py, plugin_*.py, builtin.py, blame.py    how plugins come in, and whose fault an error is
    sandbox/            a simulated cluster (extra `sandbox`)
    testing/            the kit with which authors of sinks test them (extra `testing`)
    scaffold/           the template of a new plugin (extra `new`)
    config.py, config_checks.py, credentials.py, addresses.py, options.py    what a run is asked to do
    report.py, records.py, selection.py, http.py, retry.py, redaction.py, errors.py    the ground floor

Public names are loaded on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crdbexport.config import ExportConfig, load_config
    from crdbexport.errors import (
        ConfigError,
        CrdbExportError,
        RecordRefusedError,
        SinkBusyError,
        SinkError,
        SinkRefusedError,
    )
    from crdbexport.hookspecs import hookimpl, hookspec
    from crdbexport.records import Gap, record_id
    from crdbexport.report import RunReport
    from crdbexport.runner import export
    from crdbexport.selection import Coverage
    from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
    from crdbexport.sinks.findings import Finding, Verification
    from crdbexport.sinks.staging import Staging
    from crdbexport.sinks.verifying import verify
    from crdbexport.transforms.base import Transform, TransformConfig

_HOMES = {
    "ExportConfig": "config",
    "load_config": "config",
    "ConfigError": "errors",
    "CrdbExportError": "errors",
    "RecordRefusedError": "errors",
    "SinkBusyError": "errors",
    "SinkError": "errors",
    "SinkRefusedError": "errors",
    "hookimpl": "hookspecs",
    "hookspec": "hookspecs",
    "Gap": "records",
    "record_id": "records",
    "RunReport": "report",
    "export": "runner",
    "Coverage": "selection",
    "Artifact": "sinks.base",
    "Batch": "sinks.base",
    "Outcome": "sinks.base",
    "Receipt": "sinks.base",
    "Run": "sinks.base",
    "Sink": "sinks.base",
    "SinkConfig": "sinks.base",
    "Finding": "sinks.findings",
    "Verification": "sinks.findings",
    "Staging": "sinks.staging",
    "verify": "sinks.verifying",
    "Transform": "transforms.base",
    "TransformConfig": "transforms.base",
}

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Batch",
    "ConfigError",
    "Coverage",
    "CrdbExportError",
    "ExportConfig",
    "Finding",
    "Gap",
    "Outcome",
    "Receipt",
    "RecordRefusedError",
    "Run",
    "RunReport",
    "Sink",
    "SinkBusyError",
    "SinkConfig",
    "SinkError",
    "SinkRefusedError",
    "Staging",
    "Transform",
    "TransformConfig",
    "Verification",
    "__version__",
    "export",
    "hookimpl",
    "hookspec",
    "load_config",
    "record_id",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
