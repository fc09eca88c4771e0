"""How a command that runs ends: stopped by signals in good order, and telling what came of it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdbexport.errors import OutputClosedError

if TYPE_CHECKING:
    from crdbexport.cli.settings import Voice
    from crdbexport.config import ExportConfig
    from crdbexport.redaction import Redaction
    from crdbexport.report import RunReport
    from crdbexport.supervision import Stop

log = logging.getLogger(__name__)


def tell_end(report: RunReport, config: ExportConfig, voice: Voice, redaction: Redaction) -> None:
    """Tell people a summary, and machines what is wrong; nothing to who has stopped to listen."""
    from crdbexport.cli.summary import tell

    if report.exit_code == OutputClosedError.exit_code:
        return
    if voice.for_people:
        tell(report, config, redaction, verbose=voice.verbose > 0)
    elif report.error:
        log.error(report.error, extra={"event": "run_error", "run_id": report.run_id, "exit_code": report.exit_code})


def stop_on_signals(stop: Stop) -> None:
    """The first signal ends the run in good order, the second at once."""

    def handle(number: int, frame: object) -> None:
        if stop.error is not None:
            os._exit(128 + number)
        stop.request(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)


def told_unexpected(error: Exception, arguments: Sequence[str]) -> str:
    """What is said of an error that nobody foresaw: whose it is, and what to do now.

    Of the command only its name is repeated: what was typed may hold a secret that nobody has learnt yet.
    """
    from crdbexport.blame import culprit, way_out

    what = f"{type(error).__name__}: {error}"
    plugin = culprit(error)
    if plugin is None:
        return (
            f"a bug in crdbexport: {what}; run it with -v for the traceback, and report that with the output of "
            "`crdbexport --version` and `crdbexport plugins list`; look through it first for names of yours"
        )
    command = " ".join(["crdbexport", *(each for each in arguments[:1] if each.isalpha()), "..."])
    return (
        f"plugin {plugin.name} ({plugin.label}) failed: {what}; leave it out with "
        f"`{way_out(plugin, command)}`, or report it to its authors with the traceback that -v shows"
    )
