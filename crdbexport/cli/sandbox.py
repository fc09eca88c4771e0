"""`crdbexport sandbox`: a simulated cluster in the foreground."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from crdbexport.errors import ConfigError

if TYPE_CHECKING:
    from crdbexport.sandbox.base import ClusterApp
    from crdbexport.sandbox.native import Quirks


NOT_GIVEN = (None, False, ())


class _WithSections(click.Command):
    """A command whose help lists the options of the native dialect apart."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "With --dialect native": []}
        for parameter in self.get_params(ctx):
            told = parameter.get_help_record(ctx)
            if told:
                sections["With --dialect native" if isinstance(parameter, _NativeOption) else "Options"].append(told)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class _NativeOption(click.Option):
    """An option that only the native dialect has."""


def _native(name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, cls=_NativeOption, **settings)


@click.command("sandbox", short_help="Run a simulated cluster.", cls=_WithSections)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--databases", default=4, show_default=True, type=click.IntRange(0), help="Number of databases.")
@click.option("--tables", default=12, show_default=True, type=click.IntRange(0), help="Tables in each database.")
@click.option("--views", default=0, show_default=True, type=click.IntRange(0), help="Views in each database.")
@click.option("--seed", default=1, show_default=True, help="Another seed makes another world.")
@click.option("--hostile-names", is_flag=True, help="Add databases and tables whose names are hard to handle.")
@click.option("--native-names", is_flag=True, help="Add names that SQL quotes or that real servers cannot serve.")
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
@click.option(
    "--dialect",
    default="documented",
    show_default=True,
    type=click.Choice(["documented", "native"]),
    help="Answer as the API's public page describes, or as real servers do.",
)
@_native(
    "--generation",
    type=click.Choice(["v22", "v25"]),
    help="v22 answers by name only, v25 has metadata endpoints too.  [default: v25]",
)
@_native("--cold-cache", is_flag=True, help="The metadata cache has never been filled.")
@_native("--stats-age-hours", type=click.FloatRange(0), metavar="H", help="How old the metadata cache is.")
@_native("--insecure", is_flag=True, help="Let everyone in; logins fail, as on insecure clusters.")
@_native("--tenant", is_flag=True, help="A virtual cluster: most endpoints answer 501.")
@_native("--too-old", is_flag=True, help="v21.1, which has no database endpoints.")
@_native("--no-zoneconfig", is_flag=True, help="The account may not read the details of tables.")
@_native(
    "--hide",
    multiple=True,
    metavar="NAME",
    help="The account does not see this database, or DATABASE.SCHEMA.TABLE; repeatable.",
)
def command(
    host: str,
    port: int,
    databases: int,
    tables: int,
    views: int,
    seed: int,
    hostile_names: bool,
    native_names: bool,
    latency_ms: float,
    fault_rate: float,
    username: str,
    password: str,
    no_login: bool,
    dialect: str,
    **native: Any,
) -> None:
    """Run a simulated cluster until Ctrl-C.

    It answers as the API's public page describes or, with --dialect native, as real servers do. The same seed always
    makes the same world.
    """
    try:
        from crdbexport.sandbox.faults import Faults
        from crdbexport.sandbox.server import serve_forever
        from crdbexport.sandbox.world import World
    except ImportError as error:
        raise ConfigError("the sandbox is not installed; install it with: pip install 'crdbexport[sandbox]'") from error
    common = {
        "username": username,
        "password": password,
        "require_login": not no_login,
        "latency_seconds": latency_ms / 1000,
        "faults": Faults(fault_rate, seed),
    }
    world = World(databases, tables, seed, hostile_names, native_names=native_names, views=views)
    app = _app(dialect, world, common, native)
    user = "" if no_login or native["insecure"] else username
    serve_forever(app, host, port, announce=lambda url: _announce(url, user, password))


def _app(dialect: str, world: Any, common: dict[str, Any], native: dict[str, Any]) -> ClusterApp:
    if dialect == "native":
        from crdbexport.sandbox.native import NativeSandbox

        return NativeSandbox(world, generation=native["generation"] or "v25", quirks=_quirks(**native), **common)
    from crdbexport.sandbox.app import Sandbox

    given = [name for name, value in native.items() if not any(value is absent for absent in NOT_GIVEN)]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} says how real servers answer; add --dialect native")
    return Sandbox(world, **common)


def _quirks(
    *,
    cold_cache: bool,
    stats_age_hours: float | None,
    insecure: bool,
    tenant: bool,
    too_old: bool,
    no_zoneconfig: bool,
    hide: tuple[str, ...],
    **_: object,
) -> Quirks:
    from crdbexport.sandbox.native import Quirks

    age_seconds = Quirks.stats_age_seconds if stats_age_hours is None else stats_age_hours * 3600
    return Quirks(
        cold_cache=cold_cache,
        stats_age_seconds=age_seconds,
        insecure=insecure,
        tenant=tenant,
        too_old=too_old,
        without_zoneconfig=no_zoneconfig,
        hidden_databases=hide,
        hidden_tables=hide,
    )


def _announce(url: str, username: str, password: str) -> None:
    click.echo(f"sandbox at {url}/api/v2 (Ctrl-C ends it); export it from another terminal with:", err=True)
    login = f"--username {username}" if username else "--no-login"
    prefix = f"CRDBEXPORT_PASSWORD={password} " if username else ""
    click.echo(f"  {prefix}crdbexport export --url {url} --cluster sandbox {login} --sink parquet:./lake", err=True)
