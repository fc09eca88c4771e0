"""`crdbexport export`: one cluster into every sink."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.options import (
    CLUSTER_OPTIONS,
    COMMON_OPTIONS,
    RUN_OPTIONS,
    SELECTION_OPTIONS,
    SINK_OPTIONS,
    with_options,
)
from crdbexport.cli.settings import Voice, settled

if TYPE_CHECKING:
    from crdbexport.config import ExportConfig
    from crdbexport.report import RunReport
    from crdbexport.supervision import Stop


log = logging.getLogger(__name__)


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
    from crdbexport.runner import export
    from crdbexport.supervision import Stop

    config, voice = settled(ctx, params)
    stop = Stop()
    _stop_on_signals(stop)
    with showing(wanted=voice.for_people and sys.stderr.isatty()) as watch:
        report = export(config, stop=stop, watch=watch)
    _tell(report, config, voice)
    sys.exit(report.exit_code)


def _tell(report: RunReport, config: ExportConfig, voice: Voice) -> None:
    from crdbexport.cli.summary import tell

    if voice.for_people:
        tell(report, config)
    elif report.error:
        log.error(report.error, extra={"event": "run_error", "run_id": report.run_id, "exit_code": report.exit_code})


def _stop_on_signals(stop: Stop) -> None:
    """The first signal ends the run in good order, the second at once."""

    def handle(number: int, frame: object) -> None:
        if stop.error is not None:
            os._exit(128 + number)
        stop.request(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)
