"""What a server can do to a request, as data: functions from the healthy body to bytes, pauses and endings."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.fault_server import Behaviour, Ending, Step, head, whole

KEEP, RESET, STALL = Ending.KEEP, Ending.RESET, Ending.STALL
# Stands in bodies of errors: no report, log or file may quote it.
BODY_CANARY = b"canary-body"
HTML = b"<!doctype html><title>Sign in</title><p>" + BODY_CANARY
GZIP = "Content-Encoding: gzip"
BODILESS = frozenset({"204", "304"})


def says(*steps: Step) -> Behaviour:
    """These steps, whatever was asked for."""
    return lambda body: steps


def refuses(status: str, *headers: str, body: bytes = BODY_CANARY) -> Behaviour:
    """A status with a text body that errors must not quote, where it may have a body at all."""
    if status[:3] in BODILESS:
        return says(head(*headers, status=f"HTTP/1.1 {status}"), KEEP)
    return says(whole(body, *headers, status=f"HTTP/1.1 {status}"), KEEP)


def body(text: bytes, *headers: str) -> Behaviour:
    """200 with another body than the healthy one."""
    return says(whole(text, *headers), KEEP)


def edited(edit: Callable[[bytes], bytes], *headers: str) -> Behaviour:
    """200 with the healthy body as `edit` leaves it, and a length that fits."""
    return lambda healthy: (whole(edit(healthy), *headers), KEEP)


def changed(**fields: Any) -> Behaviour:
    """The healthy JSON object with other values in these fields; None takes a field away."""

    def edit(healthy: bytes) -> bytes:
        merged = {**json.loads(healthy), **fields}
        return json.dumps({name: value for name, value in merged.items() if value is not None}).encode()

    return edited(edit)


def field(name: str, raw: bytes) -> Behaviour:
    """The healthy JSON object with the raw bytes as the value of one field, before the others."""

    def edit(healthy: bytes) -> bytes:
        rest = {key: value for key, value in json.loads(healthy).items() if key != name}
        return b'{"%s": %s, ' % (name.encode(), raw) + json.dumps(rest).encode()[1:]

    return edited(edit)


def split(share: float, *between: Step) -> Behaviour:
    """Head and body as they should be, with something in between at this share of the body."""

    def act(healthy: bytes) -> Iterator[Step]:
        cut = int(len(healthy) * share)
        yield head(f"Content-Length: {len(healthy)}") + healthy[:cut]
        yield from between
        yield healthy[cut:]
        yield KEEP

    return act


def cut_body(healthy: bytes) -> tuple[Step, ...]:
    return (head(f"Content-Length: {len(healthy)}") + healthy[:-7],)


def cut_chunks(healthy: bytes) -> tuple[Step, ...]:
    return (head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(healthy) - 7, healthy[:-7]),)


def cut_within_a_chunk(healthy: bytes) -> tuple[Step, ...]:
    return (head("Transfer-Encoding: chunked") + b"%x\r\n%s" % (len(healthy), healthy[:-7]),)


def ended_chunks_early(healthy: bytes) -> tuple[Step, ...]:
    return (head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(healthy) - 7, healthy[:-7]), KEEP)


def byte_chunks(healthy: bytes) -> tuple[Step, ...]:
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % each for each in healthy)
    return (head("Transfer-Encoding: chunked") + chunks + b"0\r\nX-Trailer: 1\r\n\r\n", KEEP)


def bad_chunk_size(healthy: bytes) -> tuple[Step, ...]:
    return (head("Transfer-Encoding: chunked") + b"-5\r\n" + healthy, KEEP)


def http_1_0(healthy: bytes) -> tuple[Step, ...]:
    return (head(status="HTTP/1.0 200 OK") + healthy,)


def http_1_0_cut(healthy: bytes) -> tuple[Step, ...]:
    return (head(status="HTTP/1.0 200 OK") + healthy[:-7],)


def no_length_cut(healthy: bytes) -> tuple[Step, ...]:
    return (head("Connection: close") + healthy[: len(healthy) // 2],)


def length_too_small(healthy: bytes) -> tuple[Step, ...]:
    return (head(f"Content-Length: {len(healthy) - 7}") + healthy, KEEP)


def length_too_large(healthy: bytes) -> tuple[Step, ...]:
    return (head(f"Content-Length: {len(healthy) + 7}") + healthy,)


def two_lengths(healthy: bytes) -> tuple[Step, ...]:
    return (head(f"Content-Length: {len(healthy)}", "Content-Length: 3") + healthy, KEEP)


def length(value: str) -> Behaviour:
    return lambda healthy: (head(f"Content-Length: {value}") + healthy,)


def length_and_chunks(healthy: bytes) -> tuple[Step, ...]:
    both = head("Transfer-Encoding: chunked", "Content-Length: 3")
    return (both + b"%x\r\n%s\r\n0\r\n\r\n" % (len(healthy), healthy), KEEP)


def extra_bytes(healthy: bytes) -> tuple[Step, ...]:
    return (whole(healthy) + b"\r\nand more " + BODY_CANARY, KEEP)


def said_twice(healthy: bytes) -> tuple[Step, ...]:
    """The next request on this connection finds an answer that it did not ask for."""
    return (whole(healthy) * 2, KEEP)


def closed_after(healthy: bytes) -> tuple[Step, ...]:
    """A good reply, and then the connection closes without having announced it."""
    return (whole(healthy),)


def early_hints(healthy: bytes) -> tuple[Step, ...]:
    informing = head(status="HTTP/1.1 100 Continue") + head("Link: </x>", status="HTTP/1.1 103 Early Hints")
    return (informing * 3 + whole(healthy), KEEP)


def endless_hints(healthy: bytes) -> Iterator[Step]:
    while True:
        yield head(status="HTTP/1.1 100 Continue") * 10
        yield 0.001


def endless_head(healthy: bytes) -> Iterator[Step]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Filler: %s\r\n" % (b"x" * 8000)


def endless_body(healthy: bytes) -> Iterator[Step]:
    yield head("Content-Length: 1000000000000")
    while True:
        yield b" " * 2**20


def slow_head(healthy: bytes) -> Iterator[Step]:
    for each in whole(healthy):
        yield bytes([each])
        yield 0.03


def slow_body(healthy: bytes) -> Iterator[Step]:
    yield head(f"Content-Length: {len(healthy)}")
    for each in healthy:
        yield bytes([each])
        yield 0.03


def gzipped(edit: Callable[[bytes], bytes] = lambda packed: packed) -> Behaviour:
    return edited(lambda healthy: edit(gzip.compress(healthy)), GZIP)


def two_members(healthy: bytes) -> tuple[Step, ...]:
    half = len(healthy) // 2
    return (whole(gzip.compress(healthy[:half]) + gzip.compress(healthy[half:]), GZIP), KEEP)


def bomb(wbits: int, encoding: str) -> Behaviour:
    """A megabyte that unpacks to a gigabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    return says(whole(start + block * 1024, f"Content-Encoding: {encoding}"), KEEP)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def retry_after(value: str, status: str = "503 Busy", date: str = "") -> Behaviour:
    return refuses(status, f"Retry-After: {value}", *([f"Date: {date}"] if date else []))
