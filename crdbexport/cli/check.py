"""`crdbexport check`: would an export work, and what would it cost."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import say
from crdbexport.cli.options import (
    CLUSTER_OPTIONS,
    COMMON_OPTIONS,
    SELECTION_OPTIONS,
    SINK_OPTIONS,
    with_options,
)
from crdbexport.cli.settings import settled
from crdbexport.errors import StoppedError, UnreadableError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdbexport.checking import CheckResult
    from crdbexport.cluster.sight import Sight
    from crdbexport.config import ExportConfig
    from crdbexport.records import Part
    from crdbexport.redaction import Redaction

SHOWN_GAPS = 10
SHOWN_DATABASES = 3
USUAL_ACCOUNT = "exporter"


@click.command("check", short_help="See whether an export would work.")
@with_options(CLUSTER_OPTIONS, SINK_OPTIONS, SELECTION_OPTIONS, COMMON_OPTIONS)
@click.pass_context
def command(ctx: click.Context, /, **params: Any) -> None:
    """Reach the cluster, log in, tell its dialect, what cannot be read, and what a run would cost.

    Reads every database's own parts and one table of each; exports nothing. Sinks that are given are checked first.
    Where privileges seem to be missing (with -v: always), it prints the SQL that grants them.
    Exit codes are those of `export`; 3 tells of gaps that the configuration does not allow.
    """
    import asyncio

    from crdbexport.pipeline.verdict import unallowed
    from crdbexport.runner import check_sinks, reachable

    config, voice, redaction = settled(ctx, params)
    signal.signal(signal.SIGTERM, _stopped)
    with reachable(config, redaction) as cluster:
        check_sinks(cluster, redaction)
        for name in cluster.sinks:
            say(f"sink {name}: ready")
        result = asyncio.run(_looked(cluster, redaction))
    _tell(result, cluster)
    if result.sight.lacking or not result.sight.databases or voice.verbose:
        _tell_grants(result.sight, cluster)
    sys.exit(3 if unallowed(result.gaps, cluster.allow_gaps) else 0)


def _stopped(number: int, frame: object) -> None:
    raise StoppedError(number)


async def _looked(config: ExportConfig, redaction: Redaction) -> CheckResult:
    """What the look finds; SIGTERM cuts it short, and it logs out all the same."""
    import asyncio

    from crdbexport.checking import look

    looking = asyncio.ensure_future(look(config, redaction))
    # An error that a signal's handler raises within the event loop's own code is lost there.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, looking.cancel)
    await asyncio.wait([looking])
    if looking.cancelled():
        raise StoppedError(signal.SIGTERM)
    return looking.result()


def _tell(result: CheckResult, config: ExportConfig) -> None:
    walk = result.walk
    say(f"cluster {config.cluster} at {config.url[0]}: reached, logged in, dialect {result.dialect}")
    say(f"sees {walk.databases_listed} databases with {walk.tables_listed} tables")
    say(
        f"a run takes about {result.run_requests} requests, {result.run_seconds:.0f} s if they come one by one, "
        f"less with --concurrency {config.concurrency}"
    )
    for line in (*_read(result.sight), *_doubts(result.sight)):
        say(line)
    for reason, count in sorted(Counter(gap.reason for gap in result.gaps).items()):
        say(f"{count} gaps: {reason}")
    for gap in result.gaps[:SHOWN_GAPS]:
        name = ".".join(shown(each) for each in (gap.database, gap.schema, gap.table) if each is not None)
        say(f"  {gap.reason}: {gap.part} of {name}")
    if len(result.gaps) > SHOWN_GAPS:
        say(f"  and {len(result.gaps) - SHOWN_GAPS} more")


def _read(sight: Sight) -> Iterator[str]:
    """What the account could read, part by part, as far as it was asked for."""
    told: dict[Part, str] = {
        "tables": "lists of tables",
        "grants": "grants of databases",
        "details": "details of one table a database",
    }
    for part, name in told.items():
        if sight.asked[part]:
            yield f"{name}: {sight.read[part]} of {sight.asked[part]} read"
    if isinstance(sight.metadata, UnreadableError):
        missing = sight.metadata.reason == "unaddressable"
        yield f"metadata endpoints: {'missing, as before v24.3' if missing else f'failed ({sight.metadata.reason})'}"
    elif sight.metadata is not None:
        there = len(sight.databases) - len(sight.without_metadata)
        yield f"metadata endpoints: answered, for {there} of {len(sight.databases)} databases"


def _doubts(sight: Sight) -> Iterator[str]:
    """Where the account seems to be shown less than there is, and which privilege it lacks then."""
    needs = sight.privileges
    if not sight.databases:
        yield f"no database seen: the account most likely lacks {needs.lists}"
    if sight.without_tables:
        yield f"no table seen in {_some(sight.without_tables)}: empty, or the account lacks {needs.lists}"
    if sight.without_grants:
        yield f"no grants seen of {_some(sight.without_grants)}: the account most likely lacks {needs.lists}"
    if sight.without_metadata:
        yield f"not in the metadata: {_some(sight.without_metadata)}: {needs.metadata}"
    if sight.refused:
        yield f"refused, see the gaps: the account most likely lacks {needs.details}{needs.or_else}"


def _some(databases: list[str]) -> str:
    rest = len(databases) - SHOWN_DATABASES
    return ", ".join(map(shown, databases[:SHOWN_DATABASES])) + (f" and {rest} more" if rest > 0 else "")


def _tell_grants(sight: Sight, config: ExportConfig) -> None:
    say("-- what the account needs there, to be granted by a member of admin; tried on no live server")
    account, databases = config.username or USUAL_ACCOUNT, sight.lacking or sight.databases
    for line in sight.privileges.statements(account, databases, details=sight.details_needed):
        say(line)
