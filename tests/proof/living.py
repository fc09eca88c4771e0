"""A cluster that lives on between the runs that read it, and that remembers what it answered to each."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Action, Delay, Disconnect, Faults, Status
from crdbexport.sandbox.objects import Column, Database, Grant, Index, ListedTable, TableDetails
from crdbexport.supervision import Stop

Answers = dict[str, tuple[int, Any]]
"""What a run was told: status and document by raw path. Where a path was asked twice, what was said last counts."""

GRACE_SECONDS = 0.1


@dataclass
class LivingTable:
    id: int
    size_bytes: int = 0
    columns: int = 1
    grants: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class LivingDatabase:
    id: int
    tables: dict[str, LivingTable] = field(default_factory=dict)
    grants: dict[str, set[str]] = field(default_factory=dict)


class LivingWorld:
    """What the cluster holds now; it answers what `sandbox.world.World` answers to the documented form."""

    def __init__(self) -> None:
        self.databases: dict[str, LivingDatabase] = {}
        self._last_id = 100

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def database_names(self) -> list[str]:
        return list(self.databases)

    def database_id(self, name: str) -> int | None:
        return self.databases[name].id if name in self.databases else None

    def database(self, name: str) -> Database:
        held = self.databases[name]
        size = sum(table.size_bytes for table in held.tables.values())
        return Database(name, held.id, size, len(held.tables), (1, 2))

    def database_grants(self, name: str) -> tuple[Grant, ...]:
        return _grants(self.databases[name].grants)

    def tables(self, name: str) -> Iterator[ListedTable]:
        for table, held in self.databases[name].tables.items():
            yield ListedTable(table, "public", held.id, held.size_bytes)

    def table(self, database_name: str, table_name: str) -> TableDetails | None:
        held = self.databases[database_name].tables.get(table_name)
        if held is None:
            return None
        columns = tuple(Column(f"c{number}", "INT8", number > 0) for number in range(held.columns))
        return TableDetails(
            table_name=table_name,
            table_id=held.id,
            database_name=database_name,
            schema_name="public",
            columns=columns,
            indexes=(Index("primary", ("c0",), unique=True),),
            grants=_grants(held.grants),
            range_count=1,
            size_bytes=held.size_bytes,
            kind="table",
            live_bytes=0,
            replicated_bytes=0,
            replica_count=3,
            store_ids=(1,),
        )


def _grants(held: dict[str, set[str]]) -> tuple[Grant, ...]:
    return tuple(Grant(user, tuple(sorted(privileges))) for user, privileges in held.items() if privileges)


class Trouble(Faults):
    """What befalls the cluster during one attempt, counted in requests from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.dead_from: int | None = None
        self.stop_at: int | None = None
        self.forbidden = ""
        self.stop = Stop()

    def action_for(self, path: str, hit: int) -> Action | None:
        self.asked += 1
        if self.dead_from is not None and self.asked >= self.dead_from:
            return Disconnect()
        if self.asked == self.stop_at:
            self.stop.request(signal.SIGTERM)
            return Delay(GRACE_SECONDS)
        return Status(403) if self.forbidden and path.endswith(self.forbidden) else None


class LivingCluster(Sandbox):
    """Notes what it answers in `answers`, which is that of the run that asks."""

    def __init__(self) -> None:
        self.world = LivingWorld()
        self.trouble = Trouble()
        self.answers: Answers = {}
        super().__init__(self.world, faults=self.trouble)  # type: ignore[arg-type]

    def begin(self, answers: Answers) -> Trouble:
        """Be asked by a run from now on; nothing befalls it until the answer is told to."""
        self.answers = answers
        self.trouble = self._faults = Trouble()
        return self.trouble

    def renew(self) -> None:
        """Be another, empty cluster."""
        self.world = self._world = LivingWorld()  # type: ignore[assignment]

    async def _serve(self, request: Request, send: Any) -> None:
        request.scope["trouble"] = self.trouble
        self.answers.pop(request.scope["raw_path"].decode(), None)
        await super()._serve(request, send)

    def _sent(self, request: Request, response: Response) -> Response:
        # What an earlier attempt left unanswered may be answered late, to nobody.
        if request.scope["trouble"] is self.trouble:
            document = json.loads(response.body)
            self.answers[request.scope["raw_path"].decode()] = (response.status_code, document)
        return response
