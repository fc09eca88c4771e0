"""`crdbexport check`: would an export work, and what would it cost."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import one_line
from crdbexport.cli.options import (
    CLUSTER_OPTIONS,
    COMMON_OPTIONS,
    SELECTION_OPTIONS,
    SINK_OPTIONS,
    with_options,
)
from crdbexport.cli.settings import settled
from crdbexport.errors import StoppedError, shown

if TYPE_CHECKING:
    from crdbexport.checking import CheckResult
    from crdbexport.config import ExportConfig

SHOWN_GAPS = 10


@click.command("check", short_help="See whether an export would work.")
@with_options(CLUSTER_OPTIONS, SINK_OPTIONS, SELECTION_OPTIONS, COMMON_OPTIONS)
@click.pass_context
def command(ctx: click.Context, /, **params: Any) -> None:
    """Reach the cluster, log in, tell its dialect, what cannot be read, and what a run would cost.

    Reads every database's own parts and one table of each; exports nothing. Sinks that are given are checked first.
    Exit codes are those of `export`; 3 tells of gaps that the configuration does not allow.
    """
    import asyncio

    from crdbexport.pipeline.verdict import unallowed
    from crdbexport.runner import check_sinks, reachable

    config = settled(ctx, params).config
    signal.signal(signal.SIGTERM, _stopped)
    with reachable(config) as cluster:
        check_sinks(cluster)
        for name in cluster.sinks:
            click.echo(f"sink {name}: ready")
        result = asyncio.run(_looked(cluster))
    _tell(result, cluster)
    sys.exit(3 if unallowed(result.gaps, cluster.allow_gaps) else 0)


def _stopped(number: int, frame: object) -> None:
    raise StoppedError(number)


async def _looked(config: ExportConfig) -> CheckResult:
    """What the look finds; SIGTERM cuts it short, and it logs out all the same."""
    import asyncio

    from crdbexport.checking import look

    looking = asyncio.ensure_future(look(config))
    # An error that a signal's handler raises within the event loop's own code is lost there.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, looking.cancel)
    await asyncio.wait([looking])
    if looking.cancelled():
        raise StoppedError(signal.SIGTERM)
    return looking.result()


def _tell(result: CheckResult, config: ExportConfig) -> None:
    walk = result.walk
    click.echo(f"cluster {one_line(config.cluster)} at {config.url[0]}: reached, logged in, dialect {result.dialect}")
    click.echo(f"sees {walk.databases_listed} databases with {walk.tables_listed} tables")
    click.echo(
        f"a run takes about {result.run_requests} requests, {result.run_seconds:.0f} s if they come one by one, "
        f"less with --concurrency {config.concurrency}"
    )
    if not walk.databases_listed:
        click.echo("the account sees no database: grant it CONNECT on those it shall read")
    for reason, count in sorted(Counter(gap.reason for gap in result.gaps).items()):
        click.echo(f"{count} gaps: {reason}")
    for gap in result.gaps[:SHOWN_GAPS]:
        name = ".".join(shown(each) for each in (gap.database, gap.schema, gap.table) if each is not None)
        click.echo(f"  {gap.reason}: {gap.part} of {name}")
    if len(result.gaps) > SHOWN_GAPS:
        click.echo(f"  and {len(result.gaps) - SHOWN_GAPS} more")
