"""Records cassettes: `python tests/cassettes/record.py [SCENARIO...]`, also known as `poe record`.

Scenarios come from the sandbox. With CRDBEXPORT_RECORD_URL set, one full export of that cluster is recorded instead,
with CRDBEXPORT_USERNAME and CRDBEXPORT_PASSWORD, or CRDBEXPORT_SESSION; CRDBEXPORT_CA_CERT names its authority.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from native_scenarios import NATIVE
from scenarios import SCENARIOS
from scrubbing import ORIGIN, PLACEHOLDER, leftovers
from tape import exchanges, export, recorded, skipped_waits

from crdbexport import __version__
from crdbexport.config import Secret
from crdbexport.sandbox.server import SandboxServer

CASSETTES = Path(__file__).parents[2] / "cassettes"
USERNAME = "demo"

HEADER = f"""\
{{name}}: {{shows}}.

Recorded on {{day}} with crdbexport {__version__} against {{against}}.
Record it again: {{again}}
Sessions, usernames, passwords and whatever may hold users' data are {PLACEHOLDER}; the address is {ORIGIN}.
"""
OF_A_CLUSTER = "everything that the server told"
AGAIN = "CRDBEXPORT_RECORD_URL=URL CRDBEXPORT_USERNAME=USER CRDBEXPORT_PASSWORD=PASSWORD poe record"
WHAT_STAYS = "Names of databases, tables, columns, indexes and roles are its own: read the file before sharing it.\n"
EVERY = {**SCENARIOS, **NATIVE}


def record_scenario(name: str, directory: Path) -> Path:
    """Record a scenario to `directory`; raises `RuntimeError` where not everything went as the scenario says."""
    scenario = EVERY[name]
    again = f"poe record {name}"
    header = HEADER.format(name=name, shows=scenario.shows, day=_today(), against=scenario.against, again=again)
    # A new password each time: a cassette that is the same as the last one holds none.
    password, faults = secrets.token_urlsafe(24), scenario.faults()
    account = {"username": USERNAME, "password": Secret(password)} if scenario.login else {"no_login": True}
    settings = {"database": scenario.database, **account}
    app = scenario.cluster(faults, username=USERNAME, password=password)
    with SandboxServer(app) as server, skipped_waits(), tempfile.TemporaryDirectory() as workplace:
        fresh = _record(Path(workplace), name, header, server.url, {scenario.expected.exit_code}, **settings)
        unmet = [rule.path for rule in faults.rules if not rule.fired]
        if unmet:
            raise RuntimeError(f"{name}: no request met the fault at {', '.join(unmet)}")
        return _keep(fresh, directory)


def record_cluster(url: str, directory: Path) -> Path:
    """Record one full export of the cluster at `url`, with the credentials of the environment."""
    name = f"{_today()}-full_export"
    against = f"the server of CRDBEXPORT_RECORD_URL, over {urlsplit(url).scheme}"
    header = HEADER.format(name=name, shows=OF_A_CLUSTER, day=_today(), against=against, again=AGAIN)
    with tempfile.TemporaryDirectory() as workplace:
        fresh = _record(Path(workplace), name, header + WHAT_STAYS, url, {0, 3}, **_credentials())
        return _keep(fresh, directory)


def _record(workplace: Path, name: str, header: str, url: str, exit_codes: Container[int], **settings: Any) -> Path:
    """A cassette in `workplace`, proved to be free of secrets."""
    fresh = workplace / f"{name}.yaml"
    with recorded(fresh, header):
        report = export(url, workplace, **settings)
    if report.exit_code not in exit_codes:
        raise RuntimeError(f"{name}: the export ended with exit code {report.exit_code}: {report.error}")
    found = sorted({each for exchange in exchanges(fresh) for each in leftovers(exchange)})
    if found:
        raise RuntimeError(f"{name} would hold what it must not: {'; '.join(found)}")
    return fresh


def _keep(fresh: Path, directory: Path) -> Path:
    """Only a cassette that is as it should be takes the place of an earlier one."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / fresh.name
    kept.write_bytes(fresh.read_bytes())
    return kept


def _credentials() -> dict[str, Any]:
    kinds = {"username": str, "password": Secret, "session": Secret, "ca_cert": Path}
    given = {name: os.environ.get(f"CRDBEXPORT_{name.upper()}") for name in kinds}
    return {name: kinds[name](value) for name, value in given.items() if value}


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def main(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(EVERY))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; the scenarios are {', '.join(EVERY)}")
    url = os.environ.get("CRDBEXPORT_RECORD_URL")
    if url and set(names) - {"full_export"}:
        sys.exit("of a real cluster, only full_export can be recorded")
    if url:
        print(record_cluster(url, CASSETTES / "recorded"))
        return
    for name in names or EVERY:
        print(record_scenario(name, CASSETTES / EVERY[name].form))


if __name__ == "__main__":
    main(sys.argv[1:])
