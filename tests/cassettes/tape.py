"""One way to make cassettes and to play them: the same export, the same filter, waits that are told and not waited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import vcr
from scrubbing import scrub_request, scrub_response
from vcr.cassette import Cassette
from vcr.persisters.filesystem import FilesystemPersister
from vcr.serialize import serialize
from vcr.serializers import yamlserializer
from vcr.stubs.httpx_stubs import vcr_handle_async_request

import crdbexport
from crdbexport import ExportConfig, RunReport
from crdbexport.carrier import Carrier
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
    return _on_tape(VCR.use_cassette(path, record_mode="all", persister=Headed(header)))


def played(path: Path) -> AbstractContextManager[Cassette]:
    """A cassette that answers each request once, and nothing that it does not hold."""
    return _on_tape(VCR.use_cassette(path, record_mode="none"))


@contextmanager
def _on_tape(tape: AbstractContextManager[Cassette]) -> Iterator[Cassette]:
    """vcrpy knows httpx's own transports; ours is one more, whose requests name their path in an extension."""
    carry = Carrier.handle_async_request
    with tape as cassette:
        taped = vcr_handle_async_request(cassette, carry, httpx)

        async def handle(carrier: Carrier, request: httpx.Request) -> httpx.Response:
            request.url = request.url.copy_with(raw_path=request.extensions["target"])
            response: httpx.Response = await taped(carrier, request)
            return response

        with mock.patch.object(Carrier, "handle_async_request", handle):
            yield cassette


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
