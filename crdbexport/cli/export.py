"""`crdbexport export`: one cluster into every sink."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import click

from crdbexport.cli.ending import stop_on_signals, tell_end
from crdbexport.cli.logs import name_run
from crdbexport.cli.options import (
    CLUSTER_OPTIONS,
    COMMON_OPTIONS,
    RUN_OPTIONS,
    SELECTION_OPTIONS,
    SINK_OPTIONS,
    with_options,
)
from crdbexport.cli.settings import settled

# New objects between two looks for cycles that nobody refers to any more.
GARBAGE_OBJECTS = 20_000


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
    # Arrow's own allocators keep for themselves what they were given back, a fifth of a run's memory.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from crdbexport.cli.progress import showing
    from crdbexport.runner import export
    from crdbexport.supervision import Stop

    config, voice, redaction = settled(ctx, params)
    _prepare_process()
    stop = Stop()
    stop_on_signals(stop)
    with showing(wanted=voice.for_people and sys.stderr.isatty()) as watch:
        report = export(config, stop=stop, watch=watch, redaction=redaction, named=name_run)
    tell_end(report, config, voice, redaction)
    sys.exit(report.exit_code)


def _prepare_process() -> None:
    """What suits a process that does nothing else; measured in docs/performance.md."""
    # Records make no cycles: looking for some among all that was imported took a tenth of a run's time.
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
