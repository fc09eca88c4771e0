"""The command line: arguments to config, errors to an exit code and one line on standard error."""

from __future__ import annotations

import importlib
import os
import sys
import threading

import click

from crdbexport import __version__
from crdbexport.errors import CrdbExportError, OutputClosedError

COMMANDS = ("export", "check", "runs", "verify", "streams", "plugins", "sandbox")
LAST_STEPS_SECONDS = 0.2
# The threads of a run; a sandbox beside it is nobody's late work.
RUN_THREADS = ("crdbexport-sink-", "crdbexport-extract", "crdbexport-observers")


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for, so that `--version` loads none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"crdbexport.cli.{cmd_name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="crdbexport")
def cli() -> None:
    """Export what CockroachDB's Cluster API tells about databases, tables and grants.

    Try it without a cluster:  crdbexport export --sandbox --sink parquet:./lake
    """


def main() -> None:
    """The console script: every way out has an exit code, and none waits for a thread that a plugin left behind."""
    others = set(threading.enumerate())
    try:
        _run()
    except SystemExit as done:
        _end_whatever_works(others, int(done.code or 0))
        raise
    _end_whatever_works(others, 0)


def _end_whatever_works(others: set[threading.Thread], exit_code: int) -> None:
    """End the process at once if something that this command began would keep it, or still has a sink's work."""
    left = [thread for thread in threading.enumerate() if thread not in others and _counts(thread)]
    for thread in left:
        thread.join(LAST_STEPS_SECONDS)
    if any(thread.is_alive() for thread in left):
        # Not standard output: whoever hangs in writing to it holds its lock. Sinks flush what they write.
        sys.stderr.flush()
        os._exit(exit_code)


def _counts(thread: threading.Thread) -> bool:
    return not thread.daemon or thread.name.startswith(RUN_THREADS)


def _run() -> None:
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        _fail("stopped", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except CrdbExportError as error:
        _fail(str(error), error.exit_code, error)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(OutputClosedError.exit_code)
    except Exception as error:  # noqa: BLE001 (the last door: a bug gets one line too)
        from crdbexport.blame import exit_code_of
        from crdbexport.cli.ending import told_unexpected

        _fail(told_unexpected(error, sys.argv[1:]), exit_code_of(error), error)


def _fail(message: str, exit_code: int, error: BaseException | None = None) -> None:
    from crdbexport.cli.logs import tell_failure

    tell_failure(message, error)
    sys.exit(exit_code)


def _usage(error: click.ClickException) -> str:
    """click's message on one line, with the way to the help."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    return error.format_message().rstrip(".") + (f"; see {path} --help" if path else "")


__all__ = ["cli", "main"]
