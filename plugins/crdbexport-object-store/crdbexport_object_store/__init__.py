"""The sink type `object-store`, for crdbexport: Parquet and JSON Lines in S3, Google Cloud Storage and Azure."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport import Sink, hookimpl
from crdbexport_object_store.sink import ObjectStoreSink

__all__ = ["ObjectStoreSink", "crdbexport_register_sinks"]


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Offer the sink type `object-store`."""
    register("object-store", ObjectStoreSink)
