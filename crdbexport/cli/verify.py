"""`crdbexport verify`: is what was published still there, whole, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crdbexport.cli.logs import say, say_json

if TYPE_CHECKING:
    from crdbexport.sinks.findings import Verification

CLEAN, FOUND, UNREADABLE = 0, 3, 5


@click.command("verify", short_help="Check a published directory.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--cluster", metavar="NAME", help="Check the runs of this cluster only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Print findings only.")
def command(directory: Path, cluster: str | None, as_json: bool, quiet: bool) -> None:
    """Read what was published to DIR again, and compare it with its manifests.

    Every file is read back: its size, SHA-256, schema and rows. Runs may be published at the same time. Prints a line
    for each finding, and a summary.

    Exit codes: 0 all is as published; 2 nothing was published there; 3 something is not as published; 5 something
    cannot be read now.
    """
    from crdbexport.cli.progress import showing_check
    from crdbexport.sinks.verifying import verify

    with showing_check(wanted=not quiet and sys.stderr.isatty()) as watch:
        verification = verify(directory, cluster=cluster, watch=watch)
    if as_json:
        say_json(verification)
    else:
        _tell(verification, quiet=quiet)
    sys.exit(_exit_code(verification))


def _tell(verification: Verification, *, quiet: bool) -> None:
    for finding in verification.findings:
        say(f"{verification.directory}/{finding.path}: {finding.message}")
    if not quiet:
        say(
            f"runs: {verification.runs:,}, as published: {verification.files:,} files with {verification.rows:,} "
            f"records in {verification.size_bytes:,} bytes, findings: {len(verification.findings):,}"
        )


def _exit_code(verification: Verification) -> int:
    if any(finding.kind == "unreadable" for finding in verification.findings):
        return UNREADABLE
    return FOUND if verification.findings else CLEAN
