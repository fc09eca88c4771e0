"""What every contender reads: databases full of tables of twelve columns each, answered in the documented form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from crdbexport.sandbox.answers import databases_answer
from crdbexport.sandbox.objects import TableDetails
from crdbexport.sandbox.templates import OPTIONAL_COLUMNS
from crdbexport.sandbox.world import World

API = "/api/v2"
SESSION = b'{"session":"YmVuY2htYXJrLXNlc3Npb24tMDAwMQ=="}'
COLUMNS = 12
FIRST_ID = 104
# One database of each kind, as the sandbox names them; all others repeat these under names and ids of their own.
MODELS = ("movr", "bank", "shop_05")
WORLD_DATABASES = 6

_encode = msgspec.json.encode


class TwelveColumns(World):
    """The sandbox's world with twelve columns in every table, so that all answers weigh about the same."""

    def table(self, database_name: str, table_name: str) -> TableDetails | None:
        details = super().table(database_name, table_name)
        if details is None:
            return None
        taken = {column.name for column in details.columns}
        more = (column for column in OPTIONAL_COLUMNS if column.name not in taken)
        columns = (*details.columns, *more)[:COLUMNS]
        names = {column.name for column in columns}
        indexes = tuple(index for index in details.indexes if names.issuperset(index.columns))
        return replace(details, columns=columns, indexes=indexes)


class Workload:
    """`databases` databases of `tables` tables each: `1 + databases * (3 + tables)` answers besides the session's.

    Answers are rendered when they are asked for, fast enough for a server to do so; `rows` says how many records of
    each stream a contender must come out with.
    """

    def __init__(self, databases: int = 50, tables: int = 200) -> None:
        world = TwelveColumns(WORLD_DATABASES, tables)
        self._models = [_Model(world, name) for name in MODELS]
        self._tables_each = tables
        self._numbers = {f"app_{number:03d}": number for number in range(databases)}

    @property
    def databases(self) -> list[str]:
        return list(self._numbers)

    @property
    def tables(self) -> int:
        return len(self._numbers) * self._tables_each

    @property
    def rows(self) -> dict[str, int]:
        """The number of records of each stream."""
        total: Counter[str] = Counter()
        for number in self._numbers.values():
            total += self._model(number).rows
        return dict(total)

    def paths(self) -> Iterator[str]:
        """Every path below the session's own, each of which `answer` knows."""
        root = f"{API}/databases"
        yield root
        for name, number in self._numbers.items():
            yield from (f"{root}/{name}", f"{root}/{name}/grants", f"{root}/{name}/tables")
            yield from (f"{root}/{name}/tables/{table}" for table in self._model(number).positions)

    def answer(self, path: str) -> bytes | None:
        """The body of the answer to a path; None where there is none."""
        segments = path.removeprefix(API).strip("/").split("/")
        match segments:
            case ["databases", name, *rest] if name in self._numbers:
                return self._of_database(name, rest)
            case ["databases"]:
                return _encode({"databases": [{"name": n, "id": str(self._id(k))} for n, k in self._numbers.items()]})
            case ["health"]:
                return b"{}"
            case ["login"]:
                return SESSION
            case ["logout"]:
                return b'{"logged_out":true}'
        return None

    def _of_database(self, name: str, rest: list[str]) -> bytes | None:
        number = self._numbers[name]
        model = self._model(number)
        match rest:
            case ["tables", table] if table in model.positions:
                head = f'{{"table_name":"{table}","table_id":"{self._id(number, model.positions[table])}",'
                return f'{head}"database_name":"{name}",'.encode() + model.details[table]
            case []:
                return _encode({**model.database, "database_name": name, "descriptor_id": str(self._id(number))})
            case ["grants"]:
                return model.grants
            case ["tables"]:
                ids = (str(self._id(number, position)) for position in range(self._tables_each))
                listed = [{**each, "table_id": own} for each, own in zip(model.listing, ids, strict=True)]
                return _encode({"tables": listed})
        return None

    def _model(self, number: int) -> _Model:
        return self._models[number % len(self._models)]

    def _id(self, number: int, position: int = -1) -> int:
        return FIRST_ID + number * (self._tables_each + 1) + 1 + position


class _Model:
    """The answers about one database of the world, without the names and ids that differ between its repetitions."""

    def __init__(self, world: World, name: str) -> None:
        self.database = _answer(world, [name])
        self.grants: bytes = _encode(_answer(world, [name, "grants"]))
        self.listing: list[dict[str, Any]] = _answer(world, [name, "tables"])["tables"]
        self.positions = {each["name"]: position for position, each in enumerate(self.listing)}
        self.rows: Counter[str] = Counter(databases=1, tables=len(self.listing))
        self.rows["database_grants"] = _privileges(msgspec.json.decode(self.grants))
        self.details = {table: self._details(_answer(world, [name, "tables", table])) for table in self.positions}

    def _details(self, reply: dict[str, Any]) -> bytes:
        """What follows the names and the id in the answer, its closing brace included."""
        self.rows["columns"] += len(reply["columns"])
        self.rows["indexes"] += len(reply["indexes"])
        self.rows["table_grants"] += _privileges(reply)
        for own in ("table_name", "table_id", "database_name"):
            del reply[own]
        rest: bytes = _encode(reply)
        return rest[1:]


def _answer(world: World, segments: list[str]) -> Any:
    return msgspec.json.decode(databases_answer(world, segments).body)


def _privileges(reply: dict[str, Any]) -> int:
    return sum(len(grant["privileges"]) for grant in reply["grants"])
