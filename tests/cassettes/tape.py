"""One way to make cassettes and to play them: the same export, the same filter, waits that are told and not waited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import vcr
from scrubbing import scrub_request, scrub_response
from vcr.cassette import Cassette
from vcr.persisters.filesystem import FilesystemPersister
from vcr.serialize import serialize
from vcr.serializers import yamlserializer

import crdbexport
from crdbexport import ExportConfig, RunReport
from crdbexport.cluster import connect
from crdbexport.cluster.transport import ClusterTransport

VCR = vcr.VCR(
    match_on=("method", "uri"),
    before_record_request=scrub_request,
    before_record_response=scrub_response,
    decode_compressed_response=True,
)


class Headed:
    """Saves cassettes below a comment; YAML passes over it when they are loaded."""

    load_cassette = staticmethod(FilesystemPersister.load_cassette)

    def __init__(self, header: str) -> None:
        self._comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())

    def save_cassette(self, cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any) -> None:
        Path(cassette_path).write_text(self._comment + serialize(cassette_dict, serializer), encoding="utf-8")


def recorded(path: Path, header: str) -> AbstractContextManager[Cassette]:
    """A new cassette that takes down every exchange."""
    cassette: AbstractContextManager[Cassette] = VCR.use_cassette(path, record_mode="all", persister=Headed(header))
    return cassette


def played(path: Path) -> AbstractContextManager[Cassette]:
    """A cassette that answers each request once, and nothing that it does not hold."""
    cassette: AbstractContextManager[Cassette] = VCR.use_cassette(path, record_mode="none")
    return cassette


def exchanges(path: Path) -> list[dict[str, Any]]:
    """The exchanges in a cassette's file, as they stand there."""
    found: list[dict[str, Any]] = yamlserializer.deserialize(path.read_text(encoding="utf-8"))["interactions"]
    return found


@contextmanager
def skipped_waits() -> Iterator[list[float]]:
    """The seconds that a client in this context waits before a request; its clock moves on, and nobody waits."""
    waits: list[float] = []

    async def skip(seconds: float) -> None:
        waits.append(seconds)
        loop = asyncio.get_running_loop()
        clock = loop.time
        loop.time = lambda: clock() + seconds  # type: ignore[method-assign]

    with mock.patch.object(connect, "ClusterTransport", functools.partial(ClusterTransport, sleep=skip)):
        yield waits


def export(url: str, workplace: Path, **settings: Any) -> RunReport:
    """The whole export that every cassette holds: all streams, one request at a time, so that the order is fixed."""
    return crdbexport.export(
        ExportConfig(
            url=(url,),
            cluster="recorded",
            run_id="r1",
            concurrency=1,
            no_plugins=True,
            state_dir=workplace / "state",
            sinks={"lines": {"type": "jsonl", "target": str(workplace / "lake")}},
            **settings,
        )
    )
