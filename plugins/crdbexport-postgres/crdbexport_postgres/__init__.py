"""The sink type `postgres`, for crdbexport: the present state of any number of clusters in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport import Sink, hookimpl
from crdbexport_postgres.sink import PostgresSink

__all__ = ["PostgresSink", "crdbexport_register_sinks"]


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Offer the sink type `postgres`."""
    register("postgres", PostgresSink)
