"""What the account may see of the world. What it may not is missing without a word, as on real servers."""

from __future__ import annotations

from crdbexport.sandbox.native.quirks import Quirks
from crdbexport.sandbox.objects import ListedTable, TableDetails
from crdbexport.sandbox.world import World


class Account:
    """One SQL role and its privileges, as the quirks give them."""

    def __init__(self, world: World, quirks: Quirks) -> None:
        self._world = world
        self._quirks = quirks

    def databases(self) -> list[str]:
        """The databases that SHOW DATABASES shows, by name."""
        return sorted(name for name in self._world.database_names() if self.sees(name))

    def sees(self, database: str) -> bool:
        """Whether the account holds a privilege on the database."""
        return database not in self._quirks.hidden_databases

    def tables(self, database: str) -> list[ListedTable]:
        """The tables and views on which the account holds a privilege, by name alone."""
        seen = self._world.tables(database) if self.sees(database) else ()
        hidden = self._quirks.hidden_tables
        kept = (each for each in seen if f"{database}.{each.schema_name}.{each.name}" not in hidden)
        return sorted(kept, key=lambda table: table.name)

    def may_show(self, table: TableDetails) -> bool:
        """Whether SHOW GRANTS and SHOW CREATE tell the account of the table."""
        return self.sees(table.database_name) and qualified(table) not in self._quirks.hidden_tables

    def may_describe(self, table: TableDetails) -> bool:
        """Whether every statement behind the table's details succeeds."""
        offline = qualified(table) in self._quirks.offline_tables
        return self.may_show(table) and not offline and not self._quirks.without_zoneconfig

    def connectable(self) -> list[str]:
        """The databases whose metadata the account gets, by id."""
        names = [each for each in self._world.database_names() if self.may_connect(each)]
        return sorted(names, key=lambda name: self._world.database_id(name) or 0)

    def may_connect(self, database: str) -> bool:
        """Whether the account holds CONNECT on the database."""
        return self.sees(database) and database not in self._quirks.without_connect


def qualified(table: TableDetails) -> str:
    """The table's name as the quirks spell it."""
    return f"{table.database_name}.{table.schema_name}.{table.table_name}"
