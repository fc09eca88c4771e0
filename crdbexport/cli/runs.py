"""`crdbexport runs`: what became of runs, delivering what they keep, and clearing up after them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import name_run, say, say_json, set_up
from crdbexport.cli.options import (
    ALLOW_GAPS,
    ALLOW_SHRINK,
    COMMON_OPTIONS,
    KEEP_SPOOL,
    REPORT,
    SINK_OPTIONS,
    STATE_DIR,
    option,
    with_options,
)
from crdbexport.cli.settings import settled
from crdbexport.redaction import Redaction

if TYPE_CHECKING:
    from crdbexport.pipeline.runs import KnownRun
    from crdbexport.sinks.lake import Lake

CLUSTER = option("--cluster", metavar="NAME", help="Only runs of this cluster.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("runs", short_help="List, deliver and clear up runs.")
def command() -> None:
    """See what became of runs, deliver what they keep, and clear up after them."""
    set_up("text", 0, Redaction())


@command.command("list", short_help="List the runs that are known here.")
@with_options((CLUSTER, STATE_DIR, JSON))
def list_runs(cluster: str | None, state_dir: Path | None, as_json: bool) -> None:
    """List the runs of the state directory, oldest first: status, records, what each still keeps on disk."""
    from crdbexport.pipeline.runs import known_runs

    runs = known_runs(_root(state_dir), cluster)
    if as_json:
        say_json(runs)
        return
    for run in runs:
        say(_line(run))
    if not runs:
        say(f"no runs in {_root(state_dir)}", err=True)


@command.command("show", short_help="Show one run.")
@click.argument("run_id", metavar="RUN")
@with_options((CLUSTER, STATE_DIR, JSON))
def show(run_id: str, cluster: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Show what is known of RUN, and how to go on with it."""
    from crdbexport.pipeline.runs import find_run

    run = find_run(_root(state_dir), run_id, cluster)
    if as_json:
        say_json(run)
        return
    for name, value in _facts(run):
        say(f"{name:<14} {value}")


@command.command("deliver", short_help="Feed sinks from what a run keeps.")
@click.argument("run_id", metavar="RUN")
@click.option("--dead-letters", is_flag=True, help="Deliver only what these sinks had refused.")
@with_options((CLUSTER,), SINK_OPTIONS, (ALLOW_GAPS, ALLOW_SHRINK, REPORT, STATE_DIR, KEEP_SPOOL), COMMON_OPTIONS)
@click.pass_context
def deliver(ctx: click.Context, /, run_id: str, dead_letters: bool, **params: Any) -> None:
    """Feed sinks from the records that RUN keeps, without asking the cluster.

    \b
    A sink that had failed:    crdbexport runs deliver RUN --sink parquet:./lake
    One that was not there:    crdbexport runs deliver RUN --sink late=jsonl:./late
    What a sink had refused:   crdbexport runs deliver RUN --dead-letters --sink webhook:https://hooks.example.com
    """
    from crdbexport.cli.ending import stop_on_signals, tell_end
    from crdbexport.cli.progress import showing
    from crdbexport.redelivery import redeliver
    from crdbexport.supervision import Stop

    config, voice, redaction = settled(ctx, params)
    stop = Stop()
    stop_on_signals(stop)
    with showing(wanted=voice.for_people and sys.stderr.isatty()) as watch:
        report = redeliver(
            config,
            run_id,
            dead_letters=dead_letters,
            stop=stop,
            watch=watch,
            redaction=redaction,
            named=name_run,
        )
    tell_end(report, config, voice, redaction)
    sys.exit(report.exit_code)


@command.command("gc", short_help="Remove what no run owns, and old snapshots.")
@click.argument("lakes", nargs=-1, metavar="[DIR]...", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the latest N snapshots of each cluster.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@with_options((STATE_DIR,))
def gc(lakes: tuple[Path, ...], keep: int | None, dry_run: bool, state_dir: Path | None) -> None:
    """Remove what no run owns from the state directory, and from each DIR that a sink publishes to.

    Without --keep only litter goes: what was left by runs that were killed. With --keep N, of each cluster only the
    latest N snapshots stay in each DIR, and the state of the latest N finished runs. Runs at work, and those whose
    records a sink still lacks, are left alone.
    """
    for line in _cleared(lakes, _root(state_dir), keep, dry_run=dry_run):
        say(f"would remove {line}" if dry_run else f"removed {line}")


def _cleared(directories: tuple[Path, ...], root: Path, keep: int | None, *, dry_run: bool) -> Iterator[str]:
    """Clear up; tells each thing that went, or would go."""
    from crdbexport.pipeline.runs import expired, litter, remove
    from crdbexport.sinks.lake import Lake

    lakes = [Lake(each.absolute()) for each in directories]
    for lake in lakes:
        lake.must_exist()
    for path in [*litter(root), *(expired(root, keep) if keep else ())]:
        if dry_run or remove(path):
            yield str(path)
    for lake in lakes:
        yield from _cleared_lake(lake, keep, dry_run=dry_run)


def _cleared_lake(lake: Lake, keep: int | None, *, dry_run: bool) -> Iterator[str]:
    from crdbexport.sinks.retention import expire, sweep

    yield from (str(lake.root / path) for path in sweep(lake, dry_run=dry_run))
    for each in expire(lake, keep, dry_run=dry_run) if keep else ():
        yield f"run {each.run_id} of {each.cluster} ({each.logical_time:%Y-%m-%d}) from {lake.root}"


def _root(state_dir: Path | None) -> Path:
    from crdbexport.config import ExportConfig, state_directory

    return state_directory(ExportConfig(state_dir=state_dir))


def _line(run: KnownRun) -> str:
    records = "" if run.records is None else f"{run.records:,} records"
    letters = f", {run.dead_letters:,} dead letters" if run.dead_letters else ""
    kept = f", keeps {run.kept_bytes / 2**20:,.1f} MiB" if run.deliverable or run.resumable else ""
    told = f"{run.started_at:%Y-%m-%d %H:%M}  {run.status:<11}  {run.cluster}  {run.run_id}  {records}{letters}{kept}"
    return told.rstrip()


def _facts(run: KnownRun) -> Iterator[tuple[str, str]]:
    yield "run", run.run_id
    yield "cluster", run.cluster
    yield "status", run.status + (f", exit code {run.exit_code}" if run.exit_code is not None else "")
    yield "logical time", run.logical_time.isoformat()
    yield "started", run.started_at.isoformat(timespec="seconds")
    if run.records is not None:
        yield "records", f"{run.records:,}"
    for name, status in run.sinks.items():
        yield "sink", f"{name}: {status}"
    if run.dead_letters:
        yield "dead letters", f"{run.dead_letters:,}, in {run.directory / 'dead_letters'}"
    yield "state", f"{run.directory} ({run.kept_bytes:,} bytes)"
    run_id = shlex.quote(run.run_id)
    if run.deliverable:
        yield "next", f"crdbexport runs deliver {run_id} --sink TYPE:TARGET"
    elif run.resumable and run.status != "running":
        yield "next", f"the same crdbexport export command with --run-id {run_id} goes on where it stopped"
