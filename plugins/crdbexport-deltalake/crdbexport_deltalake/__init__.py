"""The sink type `deltalake`, for crdbexport: every stream of any number of clusters as a Delta Lake table."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport import Sink, hookimpl
from crdbexport_deltalake.sink import DeltaLakeSink

__all__ = ["DeltaLakeSink", "crdbexport_register_sinks"]


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Offer the sink type `deltalake`."""
    register("deltalake", DeltaLakeSink)
