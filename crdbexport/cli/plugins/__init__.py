"""`crdbexport plugins`: what is installed, from where, with which options; trying a plugin, and beginning one."""

from __future__ import annotations

import click

from crdbexport.cli.logs import set_up
from crdbexport.cli.plugins.conformance import conformance
from crdbexport.cli.plugins.doctor import doctor
from crdbexport.cli.plugins.listing import list_plugins, show
from crdbexport.cli.plugins.loading import redaction
from crdbexport.cli.plugins.new import new


@click.group("plugins", short_help="Show what is installed, try it, begin a plugin.")
def command() -> None:
    """Show the installed plugins, sinks and transforms, try them, and begin new ones."""
    set_up("text", 0, redaction())


for _each in (list_plugins, show, doctor, conformance, new):
    command.add_command(_each)
