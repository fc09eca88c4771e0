"""`crdbexport export`: one cluster into every sink."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import click

from crdbexport.cli.options import (
    CLUSTER_OPTIONS,
    COMMON_OPTIONS,
    RUN_OPTIONS,
    SELECTION_OPTIONS,
    SINK_OPTIONS,
    with_options,
)
from crdbexport.cli.settings import settled


@click.command("export", short_help="Export a cluster into sinks.")
@with_options(CLUSTER_OPTIONS, SINK_OPTIONS, SELECTION_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
@click.pass_context
def command(ctx: click.Context, /, **params: Any) -> None:
    """Export databases, tables, columns, indexes and grants of one cluster into sinks.

    \b
    Try it:      crdbexport export --sandbox --sink parquet:./lake
    A cluster:   crdbexport export --url https://node:8080 --cluster prod --username exporter --sink parquet:./lake

    Exit codes: 0 complete; 2 wrong usage or configuration; 3 incomplete, gaps declared; 4 refused for good;
    5 not now, run it again; 130 and 143 stopped.
    """
    from crdbexport.cli.progress import showing
    from crdbexport.cli.summary import tell
    from crdbexport.runner import export
    from crdbexport.supervision import Stop

    config = settled(ctx, params)
    stop = Stop()
    _stop_on_signals(stop)
    with showing(wanted=_interactive(params)) as watch:
        report = export(config, stop=stop, watch=watch)
    if not params["quiet"] and params["log_format"] == "text":
        tell(report, config)
    _leave(report.exit_code)


def _interactive(params: dict[str, Any]) -> bool:
    return sys.stderr.isatty() and not params["quiet"] and params["log_format"] == "text"


def _stop_on_signals(stop: Any) -> None:
    """The first signal ends the run in good order, the second at once."""

    def handle(number: int, frame: object) -> None:
        if stop.error is not None:
            os._exit(128 + number)
        stop.request(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)


def _leave(exit_code: int) -> None:
    """End the process even if a sink still has its thread: its late work must not keep the scheduler waiting."""
    if any(thread.name.startswith("crdbexport-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
