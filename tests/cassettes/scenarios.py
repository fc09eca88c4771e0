"""The scenarios, as data: what the simulated cluster holds, what goes wrong there, and what has to come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from crdbexport import __version__
from crdbexport.records import STREAMS, Gap
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Expire, Faults, Rule, Status, Truncate
from crdbexport.sandbox.world import SYSTEM, World

DATABASES = "/api/v2/databases"
RETRY_AFTER_SECONDS = 2
ATTEMPTS = 5


class Expected(NamedTuple):
    """What an export makes of a scenario.

    `error` stands in the report's own, and `retry_after` is the shortest wait allowed before another attempt.
    """

    exit_code: int = 0
    gaps: tuple[Gap, ...] = ()
    error: str = ""
    logins: int = 1
    logouts: int = 1
    retried: int = 0
    retry_after: float = 0.0


COMPLETE = Expected()


@dataclass(frozen=True)
class Scenario:
    """A simulated cluster and what befalls those who read it."""

    form: ClassVar[str] = "documented"

    shows: str
    world: World
    rules: tuple[Rule, ...] = ()
    database: tuple[str, ...] = ()
    expected: Expected = COMPLETE
    login: bool = True

    @property
    def dialect(self) -> str | None:
        """The dialect of the report; none is told where the run ends before it is known."""
        return self.form if self.expected.exit_code in (0, 3) else None

    @property
    def against(self) -> str:
        """What it is recorded against."""
        return f"the sandbox of crdbexport {__version__}, a simulated cluster"

    def cluster(self, faults: Faults, *, username: str, password: str) -> ClusterApp:
        """The cluster, with one account."""
        return Sandbox(self.world, username=username, password=password, faults=faults)

    def faults(self) -> Faults:
        """The faults with rules that have not fired yet."""
        return Faults(rules=[replace(rule) for rule in self.rules])

    def records(self) -> dict[str, int]:
        """How many records each stream has, computed from the world itself and the expected gaps."""
        counts = dict.fromkeys(STREAMS, 0)
        for stream, count in self._counted():
            counts[stream] += count
        return counts

    def _counted(self) -> Iterator[tuple[str, int]]:
        unread = {(gap.database, gap.schema, gap.table, gap.part) for gap in self.expected.gaps}
        for database in self._selected():
            yield "databases", 1
            if (database, None, None, "grants") not in unread:
                grants = self.world.database_grants(database)
                yield "database_grants", sum(len(grant.privileges) for grant in grants)
            if (database, None, None, "tables") in unread:
                continue
            for listed in self.world.tables(database):
                yield "tables", 1
                if (database, listed.schema_name, listed.name, "details") not in unread:
                    yield from self._counted_details(database, listed.name)

    def _counted_details(self, database: str, table: str) -> Iterator[tuple[str, int]]:
        details = self.world.table(database, table)
        assert details is not None
        yield "columns", len(details.columns)
        yield "indexes", len(details.indexes)
        yield "table_grants", sum(len(grant.privileges) for grant in details.grants)

    def _selected(self) -> list[str]:
        names = [name for name in self.world.database_names() if name != SYSTEM]
        return [name for name in names if not self.database or name in self.database]


def _unaddressable(*databases: str) -> tuple[Gap, ...]:
    return tuple(Gap(each, part, "unaddressable") for each in databases for part in ("details", "grants", "tables"))


SCENARIOS = {
    "full_export": Scenario(
        "everything that a healthy cluster tells: two databases with tables in three schemas, and an empty one",
        World(databases=3, tables=5),
    ),
    "empty_cluster": Scenario(
        "a cluster without databases but the one that is left out unless named, system",
        World(databases=0),
    ),
    "hostile_names": Scenario(
        "names that must be percent-encoded, names that no URL can carry, and two tables of one name in one database",
        World(databases=0, hostile_names=True),
        database=("a/b", "50%", "?q#f", "emoji 🚀", 'quote"inside', "line\nbreak", "trailing.", ".", "..", "twins"),
        expected=Expected(
            exit_code=3,
            gaps=(
                *_unaddressable(".", ".."),
                Gap("trailing.", "details", "unaddressable", "audit", "."),
                Gap("twins", "details", "ambiguous", "reporting", "orders"),
            ),
        ),
    ),
    "session_expires_midway": Scenario(
        "the session ends before the tables are listed: the client logs in once more and reads on, nothing is lost",
        World(databases=1, tables=3),
        # Nothing else is under way then, so that a replay, which never waits, meets the same 401.
        rules=(Rule(f"{DATABASES}/movr/tables", Expire(), hits={1}),),
        expected=Expected(logins=2),
    ),
    "table_dropped_midway": Scenario(
        "a table is listed and then gone (404): it keeps its record, and the run is complete all the same",
        World(databases=1, tables=3),
        rules=(Rule(f"{DATABASES}/movr/tables/vehicles", Status(404)),),
        expected=Expected(gaps=(Gap("movr", "details", "not_found", "public", "vehicles", 404),)),
    ),
    "forbidden_database": Scenario(
        "one of two databases may not be read (403 on each of its endpoints): three gaps, the other is read whole",
        World(databases=2, tables=2),
        rules=(Rule(f"{DATABASES}/bank(/.*)?", Status(403)),),
        expected=Expected(
            exit_code=3,
            gaps=tuple(Gap("bank", part, "forbidden", http_status=403) for part in ("details", "grants", "tables")),
        ),
    ),
    "too_many_requests": Scenario(
        f"the server asks for {RETRY_AFTER_SECONDS} s of patience (429, Retry-After), then answers",
        World(databases=1, tables=2),
        rules=(
            Rule(f"{DATABASES}/movr/tables", Status(429, {"Retry-After": str(RETRY_AFTER_SECONDS)}), hits={1}),
            Rule(f"{DATABASES}/movr/tables/users", Status(429, {"Retry-After": str(RETRY_AFTER_SECONDS)}), hits={1}),
        ),
        expected=Expected(retried=2, retry_after=RETRY_AFTER_SECONDS),
    ),
    "server_error_then_success": Scenario(
        "the server fails once on a database and twice on a table (500), then answers",
        World(databases=1, tables=2),
        rules=(
            Rule(f"{DATABASES}/movr", Status(500), hits={1}),
            Rule(f"{DATABASES}/movr/tables/users", Status(500), hits={1, 2}),
        ),
        expected=Expected(retried=3),
    ),
    "json_cut_short": Scenario(
        "JSON that ends early: once for one table, whole when asked again; every time for another, a gap",
        World(databases=1, tables=3),
        rules=(
            Rule(f"{DATABASES}/movr/tables/users", Truncate(), hits={1}),
            Rule(f"{DATABASES}/movr/tables/vehicles", Truncate()),
        ),
        expected=Expected(
            exit_code=3,
            gaps=(Gap("movr", "details", "bad_body", "public", "vehicles", 200),),
            retried=1 + (ATTEMPTS - 1),
        ),
    ),
}
