"""Which paths a server knows, by generation. Every one ends in a slash and is matched after decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from crdbexport.sandbox.native.by_name import Asked, ByName
from crdbexport.sandbox.native.metadata import Metadata

NAME = r"([\w.]+)"  # In Go, \w is ASCII.
ID = r"([0-9]+)"


@dataclass(frozen=True)
class Route:
    """A path below `/api/v2`, as a regular expression, and what answers there; no `methods` means any."""

    path: str
    answer: Callable[[Asked], Response]
    methods: Collection[str] = ()
    on_tenants: bool = False

    def match(self, path: str) -> tuple[str, ...] | None:
        """The parts that the parentheses caught, None where the path is another's."""
        found = re.fullmatch(self.path, path, re.ASCII)
        return found.groups() if found else None


def routes_by_name(api: ByName) -> Sequence[Route]:
    """The routes of v21.2 and later; none asks for the method."""
    return (
        Route("/databases/", api.databases),
        Route(f"/databases/{NAME}/", api.database),
        Route(f"/databases/{NAME}/grants/", api.grants),
        Route(f"/databases/{NAME}/tables/", api.tables),
        Route(f"/databases/{NAME}/tables/{NAME}/", api.table),
    )


def routes_by_id(api: Metadata) -> Sequence[Route]:
    """The routes of v24.3 and later, which virtual clusters have too."""
    get = ("GET",)
    return (
        Route("/database_metadata/", api.databases, get, on_tenants=True),
        Route(f"/database_metadata/{ID}/", api.database, get, on_tenants=True),
        Route("/table_metadata/", api.tables, get, on_tenants=True),
        Route(f"/table_metadata/{ID}/", api.table, get, on_tenants=True),
        Route("/table_metadata/updatejob/", api.update_job, ("GET", "POST"), on_tenants=True),
        Route(f"/grants/databases/{ID}/", api.database_grants, get, on_tenants=True),
        Route(f"/grants/tables/{ID}/", api.table_grants, get, on_tenants=True),
    )
