"""What a person is told at the end of a run: what was published, what is missing, and what to do next."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from crdbexport.cli.logs import say
from crdbexport.config import ExportConfig
from crdbexport.pipeline.verdict import unallowed
from crdbexport.report import PluginReport, RunReport, SinkReport

RESUMABLE = frozenset({5, 130, 143})
# What takes less may take most of a run, and yet be nobody's trouble.
DOMINATING_SECONDS = 5.0
WORTH_TELLING = frozenset({"complete", "incomplete"})


def tell(report: RunReport, config: ExportConfig, redact: Callable[[str], str], *, verbose: bool = False) -> None:
    """Print the summary on standard error; `redact` takes secrets out of the command that was typed."""
    seconds = (report.finished_at - report.started_at).total_seconds()
    _say(
        f"run {report.run_id} of {report.cluster}: {report.status} in {seconds:.1f} s, "
        f"{report.requests.total} requests, exit code {report.exit_code}"
    )
    if report.status in WORTH_TELLING or any(sink.status == "committed" for sink in report.sinks):
        _tell_counts(report, config)
    for each in report.plugins:
        if verbose or _dominates(each, seconds):
            owner = f"{each.distribution} {each.version}".strip()
            _say(f"  {each.kind} {each.name} of {owner} took {each.wall_seconds:.1f} s for {each.batches:,} batches")
    if report.error:
        _say(f"{report.status}: {report.error}")
    for sink in report.sinks:
        if sink.error and sink.error not in (report.error or ""):
            _say(f"sink {sink.name} {sink.status}: {sink.error}")
    for command in filter(None, (_reading_command(sink) for sink in report.sinks)):
        _say("read it with:")
        _say(f"  {command}")
    if report.exit_code in RESUMABLE:
        _say("run it again with:")
        _say(f"  {redact(_same_command(report.run_id))}")


def _tell_counts(report: RunReport, config: ExportConfig) -> None:
    for name, counts in report.streams.items():
        filtered = f" ({counts.filtered:,} filtered)" if counts.filtered else ""
        _say(f"  {name:<16} {counts.extracted:>12,} records{filtered}")
    for sink in report.sinks:
        _say(_told(sink))
    for each in report.shrunk:
        _say(f"  {each.stream} shrank from {each.before:,} to {each.now:,} records since run {each.since_run_id}")
    _tell_gaps(report, config)


def _dominates(plugin: PluginReport, seconds: float) -> bool:
    """Whether the run would have been much shorter without it."""
    return plugin.wall_seconds > max(DOMINATING_SECONDS, seconds / 2)


def _say(text: str) -> None:
    say(text, err=True)


def _told(sink: SinkReport) -> str:
    delivered = sum(each.delivered for each in sink.streams.values())
    dead = sum(each.dead_lettered for each in sink.streams.values())
    letters = f", {dead:,} dead letters" if dead else ""
    return f"  sink {sink.name} ({sink.target}): {sink.status}, {delivered:,} records, {sink.bytes:,} bytes{letters}"


def _tell_gaps(report: RunReport, config: ExportConfig) -> None:
    if not report.gaps:
        return
    for reason, count in sorted(Counter(gap.reason for gap in report.gaps).items()):
        _say(f"  {count} {'gap' if count == 1 else 'gaps'}: {reason}")
    _say("  each of them is in the run report (--report FILE), and shown with -v")
    reasons = sorted({gap.reason for gap in unallowed(report.gaps, config.allow_gaps)})
    if reasons:
        flags = " ".join(f"--allow-gaps {reason}" for reason in reasons)
        _say(f"  if these gaps are to be expected, add for the next run: {flags}")


def _reading_command(sink: SinkReport) -> str:
    """A command that shows the largest stream that was published, with what is installed here."""
    published = [each for each in sink.artifacts if each.stream and each.rows and Path(each.location).is_file()]
    if not published:
        return ""
    largest = max(published, key=lambda each: each.rows or 0)
    if sink.type == "jsonl":
        return _head(largest.location)
    return f"{_python()} -c {_quoted(_reading_code(largest.location))}" if sink.type == "parquet" else ""


def _quoted(code: str) -> str:
    """In double quotes, which Python code reads best in, unless the shell would look inside."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _head(path: str) -> str:
    quoted = shlex.quote(path)
    if path.endswith(".gz"):
        return f"gzip -dc {quoted} | head -n 3"
    if path.endswith(".zst"):
        code = f"import pyarrow as pa; print(pa.input_stream({path!r}).read(2000).decode(errors='ignore'))"
        return f"{_python()} -c {_quoted(code)}"
    return f"head -n 3 {quoted}"


def _reading_code(path: str) -> str:
    if importlib.util.find_spec("duckdb"):
        return f"import duckdb; duckdb.read_parquet({path!r}).show(max_width=200)"
    if importlib.util.find_spec("polars"):
        return f"import polars; print(polars.read_parquet({path!r}))"
    return f"import pyarrow.parquet as pq; print(*pq.read_table({path!r}).slice(0, 5).to_pylist(), sep='\\n')"


def _python() -> str:
    """How this Python is called from the shell that called us."""
    found = shutil.which("python")
    same = found is not None and Path(found).resolve() == Path(sys.executable).resolve()
    return "python" if same and Path(found or "").parent == Path(sys.executable).parent else shlex.quote(sys.executable)


def _same_command(run_id: str) -> str:
    arguments = sys.argv[1:]
    named = arguments[:1] == ["runs"] or any(each == "--run-id" or each.startswith("--run-id=") for each in arguments)
    return shlex.join(["crdbexport", *arguments, *([] if named else ["--run-id", run_id])])
