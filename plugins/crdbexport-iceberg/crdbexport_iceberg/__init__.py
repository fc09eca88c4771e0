"""The sink type `iceberg`, for crdbexport: every stream of any number of clusters as an Apache Iceberg table."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport import Sink, hookimpl
from crdbexport_iceberg.sink import IcebergSink

__all__ = ["IcebergSink", "crdbexport_register_sinks"]


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Offer the sink type `iceberg`."""
    register("iceberg", IcebergSink)
