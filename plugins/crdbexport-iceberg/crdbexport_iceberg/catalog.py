"""The catalog that knows the tables: opening it, and what its errors mean for a run."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from crdbexport import ConfigError, CrdbExportError, SinkError, SinkRefusedError
from crdbexport.config import Secret
from crdbexport.sinks.tables import refuse_unwritable

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443, "thrift": 9083}


@contextmanager
def opened(name: str, properties: Mapping[str, Secret]) -> Iterator[Catalog]:
    """The catalog, closed at the end; what goes wrong with it is told as what it means for a run."""
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchPropertyException, NotInstalledError

    what = f"catalog {name}"
    with errors_of(what, "check its properties, and whether it is up"):
        try:
            catalog = load_catalog(name, **{each: value.reveal() for each, value in properties.items()})
        except (ValueError, NoSuchPropertyException, NotInstalledError) as error:
            raise ConfigError(f"{what} cannot be opened: {cause_of(error)}; check its properties") from error
    with closing(catalog), errors_of(what):
        yield catalog


def settings_of(name: str, properties: Mapping[str, Secret]) -> dict[str, str]:
    """What is known of the catalog: from pyiceberg's file and environment, and from the options, which go before."""
    from pyiceberg.utils.config import Config

    configured = {each: str(value) for each, value in (Config().get_catalog_config(name) or {}).items()}
    return {**configured, **{each: value.reveal() for each, value in properties.items()}}


def check_reachable(name: str, properties: Mapping[str, Secret]) -> None:
    """Refuse a server that does not answer, and a warehouse on this machine that takes no files.

    Without it, a server whose packets are dropped is waited for as long as the system does.
    """
    told = settings_of(name, properties)
    warehouse = urlsplit(told.get("warehouse", ""))
    if warehouse.scheme in ("", "file") and warehouse.path:
        refuse_unwritable(Path(unquote(warehouse.path)).absolute(), "warehouse")
    uri = urlsplit(told.get("uri", ""))
    if uri.scheme not in PORTS or uri.hostname is None or uri.scheme in getproxies():
        return
    try:
        with socket.create_connection((uri.hostname, uri.port or PORTS[uri.scheme]), CONNECT_SECONDS):
            pass
    except OSError as error:
        raise SinkError(f"catalog {name} at {uri.hostname} cannot be reached: {error}; try again later") from error


@contextmanager
def errors_of(what: str, now: str = "mend that, then run the same command") -> Iterator[None]:
    """Tell what is refused for good from what may work later, such as a catalog that is down."""
    from pyiceberg.exceptions import ForbiddenError, OAuthError, UnauthorizedError

    try:
        yield
    except CrdbExportError:
        raise
    except (UnauthorizedError, ForbiddenError, OAuthError) as error:
        raise SinkRefusedError(f"{what} refuses the credentials: {cause_of(error)}; give others") from error
    except Exception as error:
        raise SinkError(f"{what} failed: {cause_of(error)}; {now}") from error


def cause_of(error: BaseException) -> str:
    """The first line of what a library tells; what follows are statements and links."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
