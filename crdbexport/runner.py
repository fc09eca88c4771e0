"""The composition root: builds everything that a run needs, lets it work together, and tells what came of it."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from crdbexport.assembly import build_chain, build_sinks, secrets_of
from crdbexport.attempt import Attempt, Prepared
from crdbexport.blame import exit_code_of
from crdbexport.config import ExportConfig, logical_time, parse_config, state_directory
from crdbexport.config_checks import check
from crdbexport.credentials import with_password
from crdbexport.errors import ConfigError, StoppedError
from crdbexport.options import Secret
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.delivery import Delivery
from crdbexport.pipeline.lane import Lane, LaneSink, described
from crdbexport.pipeline.observers import Observers
from crdbexport.pipeline.runs import resumable_run
from crdbexport.pipeline.spool import Spool
from crdbexport.pipeline.state import RunRecord, RunState
from crdbexport.plugin_manager import load_plugins
from crdbexport.records import schemas
from crdbexport.redaction import Redaction
from crdbexport.report import ObjectCounts, RequestCounts, RunReport, versions
from crdbexport.sinks.base import Run
from crdbexport.supervision import Stop, Watcher

log = logging.getLogger(__name__)

SANDBOX_CLUSTER = "sandbox"
SANDBOX_LOGIN = "demo"
STANDARD_OUTPUT = "-"
Named = Callable[[str, str], None]


def export(
    config: ExportConfig,
    *,
    plugins: Sequence[tuple[str, object]] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    stop: Stop | None = None,
    watch: Watcher | None = None,
    redaction: Redaction | None = None,
    named: Named | None = None,
) -> RunReport:
    """Export a cluster and return the account of the run, whatever became of it.

    Raises `CrdbExportError` where the run could not begin: a wrong configuration, a broken plugin, a sink whose
    preflight refuses. Blocks until the end; may be called from any thread, also inside a running event loop, and
    installs no signal handlers. `plugins` adds plugin objects by name, `stop` ends the run from another thread,
    `watch` is called several times a second with the progress. For a log of your own: `redaction` learns every secret
    of the run, and `named` is called with its id and its cluster once both are known.
    """
    # Made by hand, a config has not been through the checks that a file's settings go through.
    config = parse_config(msgspec.structs.asdict(config))
    redaction = redaction or Redaction()
    started_at = clock()
    run_id = config.run_id or f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    try:
        with (
            reachable(config, redaction) as cluster,
            prepared(cluster, run_id, plugins, clock, redaction, named) as parts,
            closing(Observers(parts.plugins)) as observers,
        ):
            _warn_of_another_day(cluster, started_at)
            _point_out_another_run(cluster, parts)
            report = Attempt(parts, observers).run(stop or Stop(), watch or (lambda progress: None))
    except Exception as error:
        write_report(config, _stillborn(config, run_id, started_at, clock(), error).redacted(redaction))
        raise
    write_report(config, report)
    return report


@contextmanager
def prepared(
    config: ExportConfig,
    run_id: str,
    plugins: Sequence[tuple[str, object]],
    clock: Callable[[], datetime],
    redaction: Redaction,
    named: Named | None = None,
) -> Iterator[Prepared]:
    """All that an attempt needs; the run is held as long as the context."""
    if named is not None:
        named(run_id, config.cluster)
    installed = load_plugins(third_party=not config.no_plugins, files=config.plugin, extra=plugins)
    sinks = build_sinks(config, installed)
    chain = build_chain(config, installed)
    redaction.learn(*secrets_of(sinks, chain))
    _refuse_mixed_output(config, sinks)
    with closing(RunState(state_directory(config), config.cluster, run_id)) as state:
        now = clock()
        record = state.begin(RunRecord(config.cluster, run_id, logical_time(config, now), now, _settings(config)))
        yield Prepared(config, record, state, sinks, chain, installed, clock, redaction)


def _point_out_another_run(config: ExportConfig, parts: Prepared) -> None:
    if config.run_id is not None:
        return
    run = resumable_run(parts.state.root, config.cluster, parts.record.settings)
    if run is not None:
        log.warning(
            "run %s of this cluster did not come to its end; the same command with --run-id %s goes on with it, this "
            "one begins anew",
            run.run_id,
            run.run_id,
            extra={"event": "run_unfinished", "unfinished_run_id": run.run_id},
        )


def _refuse_mixed_output(config: ExportConfig, sinks: Sequence[LaneSink]) -> None:
    writers = [f"sink {each.name}" for each in sinks if each.target == STANDARD_OUTPUT]
    writers += ["--report -"] if config.report == STANDARD_OUTPUT else []
    if len(writers) > 1:
        raise ConfigError(f"{' and '.join(writers)} would mix on standard output; give all but one a file")


def _warn_of_another_day(config: ExportConfig, now: datetime) -> None:
    moment, today = logical_time(config, now), now.astimezone(UTC).date()
    if moment.date() != today:
        log.warning(
            "--logical-time %s is not today (%s): what is read is the cluster as it is now, for the API has no past",
            moment.date(),
            today,
            extra={"event": "logical_time_not_today"},
        )


def _settings(config: ExportConfig) -> dict[str, object]:
    """What decides which records a run reads; it cannot change under one run id once they are read."""
    return {
        "logical_time": config.logical_time,
        "dialect": config.dialect,
        "stream": list(config.streams),
        "include": sorted(set(config.include)),
        "database": list(config.database),
        "exclude_database": list(config.exclude_database),
        "transforms": list(config.transforms),
    }


def check_sinks(config: ExportConfig, redaction: Redaction) -> None:
    """Ask the configured sinks whether they could work; raises what `export` would raise."""
    installed = load_plugins(third_party=not config.no_plugins, files=config.plugin)
    chain = build_chain(config, installed)
    if not config.sinks:
        return
    sinks = build_sinks(config, installed)
    redaction.learn(*secrets_of(sinks, chain))
    now = datetime.now(UTC)
    run = Run(config.cluster, "check", logical_time(config, now), now, "", schemas(config.streams))
    nowhere = Path(os.devnull)
    spool, observers = Spool(nowhere), Observers(installed)
    lanes = [
        Lane(each, replace(run, sink_name=each.name), spool, DeadLetters(nowhere, each.name), observers)
        for each in sinks
    ]
    delivery = Delivery(lanes)
    delivery.preflight()
    delivery.dismiss()
    observers.close()


@contextmanager
def reachable(config: ExportConfig, redaction: Redaction) -> Iterator[ExportConfig]:
    """The checked configuration with a cluster to reach: its own, or a sandbox that lives as long as the context."""
    if not config.sandbox:
        config = with_password(config)
        redaction.learn(*(each.reveal() for each in (config.password, config.session) if each is not None))
    check(config)
    if not config.sandbox:
        yield config
        return
    if config.url:
        raise ConfigError("--sandbox brings its own cluster; leave out --url")
    try:
        from crdbexport.sandbox.app import Sandbox
        from crdbexport.sandbox.server import SandboxServer
        from crdbexport.sandbox.world import World
    except ImportError as error:
        raise ConfigError("the sandbox is not installed; install it with: pip install 'crdbexport[sandbox]'") from error
    with SandboxServer(Sandbox(World(), username=SANDBOX_LOGIN, password=SANDBOX_LOGIN)) as server:
        yield msgspec.structs.replace(
            config,
            url=(server.url,),
            cluster=config.cluster or SANDBOX_CLUSTER,
            username=SANDBOX_LOGIN,
            password=Secret(SANDBOX_LOGIN),
            session=None,
            no_login=False,
        )


def _stillborn(
    config: ExportConfig, run_id: str, started_at: datetime, finished_at: datetime, error: Exception
) -> RunReport:
    """The report of a run that could not begin."""
    try:
        moment = logical_time(config, started_at)
    except ConfigError:
        moment = started_at
    return RunReport(
        run_id=run_id,
        cluster=config.cluster,
        logical_time=moment,
        dialect=None,
        status="interrupted" if isinstance(error, StoppedError) else "failed",
        exit_code=exit_code_of(error),
        error=described(error),
        started_at=started_at,
        finished_at=finished_at,
        streams={},
        requests=RequestCounts(),
        objects=ObjectCounts(),
        gaps=(),
        sinks=(),
        versions=versions({}),
    )


def write_report(config: ExportConfig, report: RunReport) -> None:
    """Write the report where --report says; `-` is standard output."""
    if config.report is None:
        return
    if config.report == STANDARD_OUTPUT:
        sys.stdout.buffer.write(report.to_json())
        sys.stdout.buffer.flush()
        return
    try:
        Path(config.report).write_bytes(report.to_json())
    except OSError as error:
        log.error("--report %s cannot be written: %s", config.report, error.strerror or error)
