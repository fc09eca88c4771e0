from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import crdbexport_postgres
from crdbexport_postgres import PostgresSink


def test_the_plugin_registers_the_sink_type_postgres() -> None:
    registered: dict[str, type] = {}
    crdbexport_postgres.crdbexport_register_sinks(registered.__setitem__)
    assert registered == {"postgres": PostgresSink}


def test_the_distribution_declares_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["crdbexport"].items()
    assert EntryPoint(name, module, "crdbexport").load() is crdbexport_postgres
