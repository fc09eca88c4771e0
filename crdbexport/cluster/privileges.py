"""What an account needs so that a server shows it everything, by the form and the generation of the server.

The statements come from CockroachDB's published source and documentation; no live server has run them. README's section
"A role for crdbexport" holds the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NAMED = 3
PLACEHOLDER = "your_database"

USUALLY_EMPTY = frozenset({"defaultdb", "postgres"})
"""Databases that every cluster has, and few use."""


@dataclass(frozen=True)
class Step:
    """Statements with one purpose; `{account}` and `{database}` stand for identifiers in quotes."""

    purpose: str
    statements: tuple[str, ...] = ()
    of_details: bool = False


@dataclass(frozen=True)
class Privileges:
    """What servers of one form ask of an account.

    `lists`, `details` and `metadata` say what it lacks most likely where lists are short, a table's details are refused
    (a gap with one of the reasons `refused_as`, which may `or_else` mean something different), or the metadata leave a
    database out; `metadata` is None where no server of this form has such endpoints.
    """

    lists: str
    details: str
    refused_as: frozenset[str]
    steps: tuple[Step, ...]
    or_else: str = ""
    metadata: str | None = None

    def statements(self, account: str, databases: Sequence[str], *, details: bool) -> list[str]:
        """Lines of SQL that give the account what it needs in these databases, of which only a few are named.

        Without `details` it gets what the lists, the grants of databases and the metadata take.
        """
        # A line must hold what it shows, and not all that a name may hold can be shown.
        named = [each for each in databases if each.isprintable()][:NAMED]
        lines = []
        for step in self.steps:
            if details or not step.of_details:
                lines.append(f"-- {step.purpose}")
                lines += _filled(step, account, named or [PLACEHOLDER])
        if any("{database}" in each for step in self.steps for each in step.statements):
            lines += _unnamed(len(databases) - len(named), named)
        return lines


def identifier(name: str) -> str:
    """The name as an identifier in SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _filled(step: Step, account: str, databases: Sequence[str]) -> list[str]:
    filled = (
        each.format(account=identifier(account), database=identifier(database))
        for database in databases
        for each in step.statements
    )
    return list(dict.fromkeys(filled))


def _unnamed(rest: int, named: Sequence[str]) -> list[str]:
    if not named:
        return [f"-- {PLACEHOLDER} stands for each database that the account shall read"]
    return [f"-- and the same in {rest} more"] if rest else []


# Real servers answer 500, not 403, where a statement behind a table's details lacks a privilege.
NATIVE_REFUSALS = frozenset({"forbidden", "server_error"})
OR_ELSE = "; but views, and tables being imported, are answered 500 whatever the account holds"
METADATA = "CONNECT must be granted to the account itself, or to public; held through another role, it does not count"

CONNECT = "GRANT CONNECT ON DATABASE {database} TO {account};"


def _details(what: str) -> tuple[Step, ...]:
    """What a table's details take, where they are what tells `what`."""
    grant = "GRANT SELECT, ZONECONFIG ON TABLE {database}.public.* TO {account};"
    # Default privileges are those of the current database.
    to_come = "ALTER DEFAULT PRIVILEGES FOR ALL ROLES GRANT SELECT, ZONECONFIG ON TABLES TO {account};"
    return (
        Step(f"{what}; SELECT opens all rows, too, and ZONECONFIG the zone configurations", (grant,), of_details=True),
        Step("the same for tables to come, in every schema", (f"USE {{database}}; {to_come}",), of_details=True),
        Step("each schema but public takes GRANT USAGE ON SCHEMA, and the same on its tables", of_details=True),
    )


DOCUMENTED = Privileges(
    lists="membership of admin",
    details="membership of admin",
    refused_as=frozenset({"forbidden"}),
    steps=(Step("members of admin may do everything; this form knows no lesser role", ("GRANT admin TO {account};",)),),
)

NATIVE_BY_NAME = Privileges(
    lists="CONNECT on the database",
    details="SELECT and ZONECONFIG on the table (before v22.2: any privilege on it)",
    refused_as=NATIVE_REFUSALS,
    steps=(
        Step("names of databases and tables, grants of databases", (CONNECT,)),
        *_details("sizes, columns, indexes and grants of tables"),
    ),
    or_else=OR_ELSE,
    metadata=METADATA,
)

NATIVE_BY_ID = Privileges(
    lists="CONNECT on the database",
    details="SELECT and ZONECONFIG on the table",
    refused_as=NATIVE_REFUSALS,
    steps=(
        Step("names, sizes, counts and grants; CONNECT through another role does not count", (CONNECT,)),
        *_details("columns and indexes"),
    ),
    or_else=OR_ELSE,
    metadata=METADATA,
)
