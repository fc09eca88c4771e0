"""`crdbexport plugins doctor`: every plugin examined in a process of its own, and what to do about each problem."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crdbexport.cli.logs import say, say_json
from crdbexport.cli.options import PLUGIN_OPTIONS, with_options
from crdbexport.cli.plugins.loading import redaction

if TYPE_CHECKING:
    from crdbexport.cli.plugins.examining import Examined, Problem
    from crdbexport.plugin_info import PluginInfo

UNWELL = 3
PATIENCE_SECONDS = 60.0
Case = dict[str, Any]


@click.command("doctor", short_help="Examine every plugin, and say what to do.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@with_options(PLUGIN_OPTIONS)
def doctor(as_json: bool, no_plugins: bool, plugin: tuple[Path, ...]) -> None:
    """Examine each plugin that is let in, in a process of its own: one that crashes or hangs hurts nobody.

    Does it import, and how long does that take beyond what crdbexport itself loads? Does it implement hooks that there
    are, for this API version? Are its names free, its options decodable, its conformance class importable?
    Exit code 0: nothing is wrong but for warnings; 3: something is.
    """
    cases = [_case(info, arguments) for info, arguments in _candidates(plugin, no_plugins=no_plugins)]
    _note_clashes(cases)
    if as_json:
        say_json(cases)
    else:
        _tell(cases)
    if any(each.severity == "error" for case in cases for each in case["problems"]):
        sys.exit(UNWELL)


def _candidates(files: tuple[Path, ...], *, no_plugins: bool) -> Iterator[tuple[PluginInfo, list[str]]]:
    """Every plugin in the order of loading, and how it is named to the process that examines it."""
    from crdbexport.plugin_manager import candidates

    for info, source in candidates(third_party=not no_plugins, files=files):
        is_file = isinstance(source, Path)
        yield info, ["file", str(source)] if is_file else ["entry-point", info.distribution, info.name]


def _case(info: PluginInfo, arguments: list[str]) -> Case:
    """What is told of one plugin; one that is not let in is not imported."""
    from crdbexport.cli.plugins.examining import Examined

    found = _examined(arguments) if info.state == "loaded" else Examined()
    known = {"name": info.name, "distribution": info.distribution, "version": info.version, "location": info.location}
    state = "broken" if any(each.severity == "error" for each in found.problems) else info.state
    facts = {name: getattr(found, name) for name in found.__struct_fields__}
    return {**known, "state": state, **facts}


def _examined(arguments: list[str]) -> Examined:
    import msgspec

    from crdbexport.cli.plugins.examining import Examined, problem
    from crdbexport.cli.settings import SECRET_VARIABLES

    # No secret is needed, so that none is handed on.
    environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    command = [sys.executable, "-m", "crdbexport.cli.plugins.examining", *arguments]
    try:
        ran = subprocess.run(  # noqa: S603 (this Python, with the names of what is installed)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Examined(problems=[problem("import", f"it did not come back within {PATIENCE_SECONDS:g} s")])
    if ran.returncode or not ran.stdout:
        return Examined(problems=[problem("import", f"it ended the process ({_end(ran.returncode)})")])
    return msgspec.json.decode(ran.stdout, type=Examined)


def _end(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _note_clashes(cases: list[Case]) -> None:
    """A name belongs to the plugin that is loaded first."""
    from crdbexport.cli.plugins.examining import problem

    owners: dict[tuple[str, str], str] = {}
    for case in cases:
        label = f"{case['distribution']} {case['version']}"
        for key in [(what, name) for what in ("sinks", "transforms") for name in case[what]]:
            if owners.setdefault(key, label) != label:
                case["problems"].append(problem("names", f"{key[1]!r} is already offered by {owners[key]}"))
                case["state"] = "broken"


def _tell(cases: list[Case]) -> None:
    from crdbexport.cli.plugins.examining import CHECKS

    rows = [["plugin", "distribution", "state", "ms", *CHECKS]]
    for case in cases:
        label = f"{case['distribution']} {case['version']}".strip()
        milliseconds = "-" if case["import_ms"] is None else f"{case['import_ms']:.0f}"
        rows.append([case["name"], label, case["state"], milliseconds, *(_mark(case, check) for check in CHECKS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    redact = redaction()
    for case in cases:
        for each in case["problems"]:
            say(redact(f"{each.severity}: plugin {case['name']}: {each.problem}; {each.remedy}"))


def _mark(case: Case, check: str) -> str:
    found: list[Problem] = [each for each in case["problems"] if each.check == check]
    if found:
        return "FAILS" if any(each.severity == "error" for each in found) else "warns"
    reached = case["state"] == "loaded" or any(each.check == "names" for each in case["problems"])
    if not reached or (check == "conformance" and not case["conformance"]):
        return "-"
    return "ok"
