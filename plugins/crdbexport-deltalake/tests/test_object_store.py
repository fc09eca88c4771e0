"""Tables in S3, as moto simulates it on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pytest
from crdbexport_deltalake import DeltaLakeSink
from deltalake import DeltaTable
from moto.server import ThreadedMotoServer

from crdbexport import Batch, Coverage, Outcome, Receipt, SinkError, SinkRefusedError
from crdbexport.config import convert
from crdbexport.selection import Selection
from crdbexport.testing import records, sample_run

pytestmark = pytest.mark.slow

RUN = sample_run(streams=["databases"])


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The options of a store whose credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="lake")
    return {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}


def sink_at(root: str, options: dict[str, str], mode: str = "append") -> DeltaLakeSink:
    settings: dict[str, Any] = {"root": root, "storage_options": options, "mode": mode}
    return DeltaLakeSink(convert(settings, DeltaLakeSink.Config, where="test"))


def deliver(root: str, options: dict[str, str], mode: str) -> Receipt:
    sink = sink_at(root, options, mode)
    sink.preflight(RUN)
    sink.open(RUN)
    sink.write(Batch("databases", 0, records("databases", 3, run=RUN)))
    return sink.commit(RUN, Outcome(True, (), {"databases": Coverage(Selection())}, {}))


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_run_arrives_once_with_credentials_of_the_environment(store: dict[str, str], mode: str) -> None:
    root = f"s3://lake/{mode}/clusters"
    receipts = [deliver(root, store, mode) for _ in range(2)]
    table = DeltaTable(f"{root}/databases", storage_options=store)
    assert pa.table(table.scan()).num_rows == 3
    assert [receipt.artifacts[0].location for receipt in receipts] == [f"{root}/databases"] * 2


def test_a_bucket_that_is_absent_is_refused_before_the_run(store: dict[str, str]) -> None:
    with pytest.raises(SinkRefusedError, match="no such bucket"):
        sink_at("s3://absent/lake", store).preflight(RUN)


def test_missing_credentials_are_refused_before_the_run(store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SinkRefusedError, match="found no credentials"):
        sink_at("s3://lake/x", store).preflight(RUN)


def test_a_store_that_is_down_is_told_of_within_seconds(store: dict[str, str]) -> None:
    began = time.monotonic()
    with pytest.raises(SinkError, match="Connection refused"):
        sink_at("s3://lake/x", store | {"aws_endpoint_url": "http://127.0.0.1:1"}).preflight(RUN)
    assert time.monotonic() - began < 10
