"""`crdbexport sandbox`: a simulated cluster in the foreground."""

from __future__ import annotations

import click

from crdbexport.errors import ConfigError


@click.command("sandbox", short_help="Run a simulated cluster.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--databases", default=4, show_default=True, type=click.IntRange(0), help="Number of databases.")
@click.option("--tables", default=12, show_default=True, type=click.IntRange(0), help="Tables in each database.")
@click.option("--seed", default=1, show_default=True, help="Another seed makes another world.")
@click.option("--hostile-names", is_flag=True, help="Add databases and tables whose names are hard to handle.")
@click.option("--latency-ms", default=0.0, show_default=True, type=click.FloatRange(0), help="Delay of each answer.")
@click.option(
    "--fault-rate",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of requests that fail.",
)
@click.option("--username", default="demo", show_default=True, help="The user who may log in.")
@click.option("--password", default="demo", show_default=True, help="That user's password; a toy, not a secret.")
@click.option("--no-login", is_flag=True, help="Ask for no login.")
def command(
    host: str,
    port: int,
    databases: int,
    tables: int,
    seed: int,
    hostile_names: bool,
    latency_ms: float,
    fault_rate: float,
    username: str,
    password: str,
    no_login: bool,
) -> None:
    """Run a simulated cluster that answers as the API's public page describes, until Ctrl-C.

    The same seed always makes the same world.
    """
    try:
        from crdbexport.sandbox.app import Sandbox
        from crdbexport.sandbox.faults import Faults
        from crdbexport.sandbox.server import serve_forever
        from crdbexport.sandbox.world import World
    except ImportError as error:
        raise ConfigError("the sandbox is not installed; install it with: pip install 'crdbexport[sandbox]'") from error
    app = Sandbox(
        World(databases, tables, seed, hostile_names),
        username=username,
        password=password,
        require_login=not no_login,
        latency_seconds=latency_ms / 1000,
        faults=Faults(fault_rate, seed),
    )
    serve_forever(app, host, port, announce=lambda url: _announce(url, "" if no_login else username, password))


def _announce(url: str, username: str, password: str) -> None:
    click.echo(f"sandbox at {url}/api/v2 (Ctrl-C ends it); export it from another terminal with:", err=True)
    login = f"--username {username}" if username else "--no-login"
    prefix = f"CRDBEXPORT_PASSWORD={password} " if username else ""
    click.echo(f"  {prefix}crdbexport export --url {url} --cluster sandbox {login} --sink parquet:./lake", err=True)
