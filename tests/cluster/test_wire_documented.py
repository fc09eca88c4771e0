"""The decoders of the wire: a reply that is not whole is refused wherever it was cut, and numbers are exact."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport.cluster.dialects.wire_documented import (
    DatabaseReply,
    DatabasesReply,
    GrantsReply,
    TableReply,
    TablesReply,
)
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.replies import judged
from crdbexport.errors import UnreadableError
from crdbexport.http import Reply
from crdbexport.retry import TransientError
from crdbexport.sandbox.answers import databases_answer
from crdbexport.sandbox.world import World

WORLD = World(databases=3, tables=4, hostile_names=True)
SAMPLES: list[tuple[type, list[str]]] = [
    (DatabasesReply, []),
    (DatabaseReply, ["movr"]),
    (GrantsReply, ["movr", "grants"]),
    (TablesReply, ["emoji 🚀", "tables"]),
    (TableReply, ["movr", "tables", "users"]),
    (TableReply, ["emoji 🚀", "tables", "emoji 🚀"]),
]


def decode(shape: type, body: bytes) -> Any:
    endpoint = Endpoint("GET", ("databases",))
    return judged(endpoint, Reply(200, {}, body), msgspec.json.Decoder(shape, strict=False).decode)


@pytest.mark.parametrize(
    ("shape", "segments"), SAMPLES, ids=["list", "database", "grants", "tables", "table", "hard name"]
)
def test_every_beginning_of_a_reply_is_refused_and_the_whole_is_read(shape: type, segments: list[str]) -> None:
    body = bytes(databases_answer(WORLD, segments).body)
    assert len(body) > 100
    assert isinstance(decode(shape, body), shape)
    for length in range(len(body)):
        with pytest.raises(TransientError) as caught:
            decode(shape, body[:length])
        assert isinstance(caught.value.final, UnreadableError)
        assert caught.value.final.reason == "bad_body"


def size(text: str) -> int | None:
    reply: DatabaseReply = decode(DatabaseReply, b'{"size_bytes": %s}' % text.encode())
    return reply.size_bytes


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_every_int64_is_exact_as_a_number_and_as_a_string(number: int) -> None:
    assert size(f"{number}") == size(f'"{number}"') == number


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_int64_is_exact(number: int) -> None:
    assert size(f"{number}") == size(f'"{number}"') == number


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, -(2**64), 10**30, 10**400])
def test_what_is_no_int64_is_refused(number: int) -> None:
    for text in (f"{number}", f'"{number}"'):
        with pytest.raises(TransientError):
            size(text)


@pytest.mark.parametrize("text", ["1.5", '"1.5"', "true", '""', '" 7"', '"0x10"', '"1_000"', '"nan"', '"²"', "NaN"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(TransientError):
        size(text)


def test_a_name_may_be_any_text() -> None:
    reply: DatabasesReply = decode(
        DatabasesReply, rb'{"databases": [{"name": "\u0000\ud83d\ude80\n\"\\"}, {"name": ""}]}'
    )
    assert [each.name for each in reply.databases] == ['\x00🚀\n"\\', ""]


@pytest.mark.parametrize("name", [rb"\ud83d", rb"\ude80\ud83d", b"\xff", b"\xed\xa0\xbd"])
def test_a_name_that_is_no_text_is_refused(name: bytes) -> None:
    with pytest.raises(TransientError):
        decode(DatabasesReply, b'{"databases": [{"name": "%s"}]}' % name)
