"""`webhook` beside httpx's client, which posts messages of the same size, signed, to the same receiver."""

from __future__ import annotations

import base64
import os
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import httpx
import msgspec
import pyarrow as pa
from standardwebhooks import Webhook

from crdbexport import Sink
from crdbexport.sinks.webhook import SECRET_VARIABLE, WebhookSink
from tests.benchmarks.sinks.target import Target

SECRET = base64.b64encode(b"of the benchmark, of no use".ljust(32)).decode()


def sink(target: Target) -> Sink:
    os.environ[SECRET_VARIABLE] = f"whsec_{SECRET}"
    return WebhookSink(WebhookSink.Config(url=target.address))


def library(target: Target, data: pa.RecordBatchReader) -> None:
    config, signer = WebhookSink.Config(url=target.address), Webhook(SECRET)
    encoder = msgspec.json.Encoder()
    with httpx.Client(timeout=config.request_seconds) as client:
        number = 0
        for batch in data:
            rows = [encoder.encode(row) for row in batch.to_pylist()]
            for records in chunks(rows, config.max_records, config.max_bytes):
                number += 1
                body = encoder.encode({"type": "records.batch", "data": {"records": list(map(msgspec.Raw, records))}})
                now = datetime.now(UTC)
                headers = {
                    "content-type": "application/json",
                    "webhook-id": f"msg_{number}",
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": signer.sign(f"msg_{number}", now, body.decode()),
                }
                client.post(target.address, content=body, headers=headers).raise_for_status()


def chunks(rows: Sequence[bytes], most: int, most_bytes: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for row in rows:
        length = len(row) + 1
        if chunk and (len(chunk) == most or size + length > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += length
    if chunk:
        yield chunk


def run_ids(target: Target) -> Iterator[str]:
    """The receiver counts records, and there is one run."""
    with urllib.request.urlopen(target.address) as reply:
        for _ in range(int(reply.read())):
            yield target.run.run_id
