"""The sink type `duckdb`, for crdbexport: the present state of any number of clusters in one DuckDB file."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport import Sink, hookimpl
from crdbexport_duckdb.sink import DuckDBSink

__all__ = ["DuckDBSink", "crdbexport_register_sinks"]


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Offer the sink type `duckdb`."""
    register("duckdb", DuckDBSink)
