"""`database_metadata/`, `table_metadata/` and `grants/...`: what v24.3 and later answer when they are asked by id."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from crdbexport.sandbox.native.account import Account, qualified
from crdbexport.sandbox.native.by_name import Asked
from crdbexport.sandbox.native.paging import INTEGER, NumberedPage, check_sort_order, number_in
from crdbexport.sandbox.native.quirks import Quirks
from crdbexport.sandbox.native.replies import RefusedError, internal_error, json_answer, not_found, rfc3339
from crdbexport.sandbox.native.stats_job import StatsJob
from crdbexport.sandbox.native.table_reply import create_statement, live_share
from crdbexport.sandbox.objects import Grant, TableDetails
from crdbexport.sandbox.world import World

USUAL_PAGE = 10
BAD_SORT = "invalid sort key value"


class Metadata:
    """Sizes, counts and grants by id. Sizes and counts come from the cache that the job fills."""

    def __init__(self, world: World, quirks: Quirks, job: StatsJob) -> None:
        self._world = world
        self._quirks = quirks
        self._account = Account(world, quirks)
        self._job = job

    def databases(self, asked: Asked) -> Response:
        check_sort_order(asked.query, BAD_SORT)
        page = NumberedPage.of(asked.query, usual_size=USUAL_PAGE)
        names = self._account.connectable()
        rows = [self._database_row(name) for name in page.of_items(names)]
        return json_answer({"results": rows or None, "pagination_info": page.info(rows, len(names))})

    def database(self, asked: Asked) -> Response:
        name = self._world.database_name(_id(asked, "invalid database ID"))
        if name is None or not self._account.may_connect(name):
            raise not_found("database not found")
        return json_answer({"metadata": self._database_row(name)})

    def tables(self, asked: Asked) -> Response:
        check_sort_order(asked.query, BAD_SORT)
        page = NumberedPage.of(asked.query, usual_size=USUAL_PAGE)
        completed = self._job.completed()
        ids = self._table_ids(number_in(asked.query, "dbId")) if completed else []
        tables = (self._world.table_with_id(each) for each in page.of_items(ids))
        rows = [self._table_row(table, completed) for table in tables if table and completed]
        return json_answer({"results": rows or None, "pagination_info": page.info(rows, len(ids))})

    def table(self, asked: Asked) -> Response:
        table = self._world.table_with_id(_id(asked, "invalid table ID"))
        completed = self._job.completed()
        known = table is not None and table.kind == "table" and self._account.may_connect(table.database_name)
        if table is None or not known or completed is None:
            raise not_found("table not found")
        shown = self._account.may_show(table)
        # A statement that cannot be had is no error: the failure stands in its place.
        statement = create_statement(table) if shown else f"Unable to retrieve create statement for {qualified(table)}"
        return json_answer({"metadata": self._table_row(table, completed), "create_statement": statement})

    def update_job(self, asked: Asked) -> Response:
        if not self._account.connectable():
            raise not_found("Not Found")
        if asked.method == "GET":
            return json_answer(self._job.status())
        only_if_stale = asked.query.get("onlyIfStale", "false") != "false"
        return json_answer(self._job.trigger(only_if_stale=only_if_stale))

    def database_grants(self, asked: Asked) -> Response:
        name = self._world.database_name(_id(asked, "invalid database id"))
        if name is None:
            raise not_found("database does not exist")
        grants = self._world.database_grants(name) if self._account.sees(name) else ()
        return _grants_answer(asked, grants, name=name)

    def table_grants(self, asked: Asked) -> Response:
        table = self._world.table_with_id(_id(asked, "invalid table ID"))
        if table is None:
            raise not_found("table does not exist")
        if qualified(table) in self._quirks.offline_tables:
            raise internal_error()
        grants = table.grants if self._account.may_show(table) else ()
        names = {"database_name": table.database_name, "schema_name": table.schema_name}
        return _grants_answer(asked, grants, **names, table_name=table.table_name)

    def _database_row(self, name: str) -> dict[str, Any]:
        """A database without rows in the cache, be it cold or the database empty, is all zeros and nulls."""
        completed = self._job.completed()
        cached = self._world.database(name) if completed and any(self._world.tables(name)) else None
        return {
            "db_id": self._world.database_id(name),
            "db_name": name,
            "size_bytes": self._world.replicated_bytes(name) if cached else 0,
            "table_count": cached.table_count if cached else 0,
            "store_ids": cached.store_ids if cached else None,
            "last_updated": rfc3339(completed) if cached else None,
        }

    def _table_ids(self, database_id: int | None) -> list[int]:
        """The tables that the cache holds, by id; no views."""
        names = self._account.connectable()
        wanted = [name for name in names if database_id in (None, self._world.database_id(name))]
        return sorted(each.table_id for name in wanted for each in self._world.tables(name) if each.kind == "table")

    def _table_row(self, table: TableDetails, completed: datetime) -> dict[str, Any]:
        failed = qualified(table) in self._quirks.failing_stats
        # A run writes its rows one after another.
        updated = completed - (timedelta(days=1) if failed else timedelta(milliseconds=table.table_id % 1000))
        return {
            "db_id": self._world.database_id(table.database_name),
            "db_name": table.database_name,
            "table_id": table.table_id,
            "schema_name": table.schema_name,
            "table_name": table.table_name,
            "replication_size_bytes": table.replicated_bytes,
            "range_count": table.range_count,
            "column_count": len(table.columns),
            "index_count": len(table.indexes) - 1,
            "percent_live_data": live_share(table),
            "total_live_data_bytes": table.live_bytes,
            "total_data_bytes": table.size_bytes,
            "store_ids": table.store_ids or None,
            "auto_stats_enabled": True,
            "stats_last_updated": rfc3339(updated - timedelta(hours=1)),
            **({"last_update_error": "could not read span statistics"} if failed else {}),
            "last_updated": rfc3339(updated),
            "replica_count": table.replica_count,
        }


def _grants_answer(asked: Asked, grants: Iterable[Grant], **names: str) -> Response:
    check_sort_order(asked.query, "invalid sort order")
    page = NumberedPage.of(asked.query, usual_size=0)
    held = [{"grantee": grant.user, "privilege": each} for grant in grants for each in grant.privileges]
    rows = page.of_items(held)
    return json_answer({"results": rows, "pagination_info": page.info(rows, len(held)), **names})


def _id(asked: Asked, refusal: str) -> int:
    (text,) = asked.parts
    if not INTEGER.fullmatch(text):
        # More digits than a descriptor id can have.
        raise RefusedError(HTTPStatus.BAD_REQUEST, refusal)
    return int(text)
