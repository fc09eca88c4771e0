"""`databases/...`: what every generation since v21.2 answers when it is asked by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from crdbexport.sandbox.native.account import Account
from crdbexport.sandbox.native.names import listed, resolved
from crdbexport.sandbox.native.paging import Query, Window
from crdbexport.sandbox.native.quirks import Generation, Quirks
from crdbexport.sandbox.native.replies import internal_error, json_answer, not_found
from crdbexport.sandbox.native.table_reply import grant_rows, table_reply
from crdbexport.sandbox.objects import ListedTable
from crdbexport.sandbox.world import World


@dataclass(frozen=True)
class Asked:
    """A request that has found its route: the parts of its path that the route's parentheses caught, and the rest."""

    method: str
    query: Query
    parts: tuple[str, ...] = field(default=())


class ByName:
    """The five endpoints; names are taken as they come, decoded."""

    def __init__(self, world: World, quirks: Quirks, generation: Generation, stats_created: datetime) -> None:
        self._world = world
        self._quirks = quirks
        self._account = Account(world, quirks)
        self._generation = generation
        self._stats_created = stats_created

    def databases(self, asked: Asked) -> Response:
        names = self._account.databases()
        window = Window.of(asked.query)
        body: dict[str, Any] = {"databases": page} if (page := window.of_items(names)) else {}
        return json_answer(body | window.exact_next(len(names), self._quirks.next_offset))

    def database(self, asked: Asked) -> Response:
        database_id = self._world.database_id(*asked.parts)
        if database_id is None:
            # The lookup's "database ... not found" does not end in the words that make a 404.
            raise internal_error()
        return json_answer({"descriptor_id": database_id})

    def grants(self, asked: Asked) -> Response:
        name = self._known(asked)
        rows = grant_rows(self._world.database_grants(name)) if self._account.sees(name) else []
        window = Window.of(asked.query)
        body: dict[str, Any] = {"grants": window.of_items(rows) or None}
        return json_answer(body | window.full_page_next(len(rows), self._quirks.next_offset))

    def tables(self, asked: Asked) -> Response:
        window = Window.of(asked.query)
        tables = self._in_order(self._account.tables(self._known(asked)), window)
        page = [listed(each.schema_name, each.name) for each in window.of_items(tables)]
        body: dict[str, Any] = {"table_names": page} if page else {}
        return json_answer(body | window.full_page_next(len(tables), self._quirks.next_offset))

    def table(self, asked: Asked) -> Response:
        database, requested = asked.parts
        table = self._world.table_in(database, *resolved(requested))
        if table is None:
            raise not_found("database or table not found")
        if table.kind != "table" or not self._account.may_describe(table):
            # SHOW STATISTICS wants a table, SHOW RANGES a privilege; neither failure has a status of its own.
            raise internal_error()
        age = timedelta(minutes=table.table_id % 600)
        return json_answer(table_reply(table, self._generation, self._stats_created - age))

    def _known(self, asked: Asked) -> str:
        (name,) = asked.parts
        if self._world.database_id(name) is None:
            raise not_found("database not found")
        return name

    def _in_order(self, tables: list[ListedTable], window: Window) -> list[ListedTable]:
        """The server sorts by name alone; among equal names, any order is right, on any page."""
        turned = self._quirks.unstable_ties and bool(window.limit) and (window.offset // window.limit) % 2 == 1
        return sorted(tables, key=lambda table: (table.name, -table.table_id)) if turned else tables
