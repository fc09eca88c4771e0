"""The servers that sinks send to, each a process of its own: `python -m tests.benchmarks.sinks.servers NAME`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

from tests.benchmarks.sinks import receiver


def postgres() -> None:
    from crdbexport_postgres.local_server import local_server

    with local_server() as server:
        _tell(server.uri())


def moto() -> None:
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # It tells of every request.
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    told = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **told).create_bucket(Bucket="bench")
    _tell(address)


def webhooks() -> None:
    asyncio.run(receiver.main())


def _tell(address: str) -> None:
    """Tell the address, and wait until the process is ended."""
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    signal.pause()


SERVERS: dict[str, Callable[[], None]] = {"postgres": postgres, "moto": moto, "receiver": webhooks}

if __name__ == "__main__":
    # What a server leaves is removed with its context, which a signal would otherwise jump over.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    SERVERS[sys.argv[1]]()
