"""The built-in sinks and transforms, registered as any other distribution would register its own."""

from __future__ import annotations

from collections.abc import Callable

from crdbexport.hookspecs import hookimpl
from crdbexport.sinks.base import Sink
from crdbexport.sinks.jsonl import JsonLinesSink
from crdbexport.sinks.parquet import ParquetSink
from crdbexport.sinks.webhook import WebhookSink
from crdbexport.transforms.base import Transform
from crdbexport.transforms.filter import Filter
from crdbexport.transforms.mask import Mask


@hookimpl
def crdbexport_register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    register("parquet", ParquetSink)
    register("jsonl", JsonLinesSink)
    register("webhook", WebhookSink)


@hookimpl
def crdbexport_register_transforms(register: Callable[[str, type[Transform]], None]) -> None:
    register("filter", Filter)
    register("mask", Mask)
