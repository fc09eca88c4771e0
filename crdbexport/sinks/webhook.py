"""POSTs of JSON batches, signed as Standard Webhooks says.

A message is sent at least once, and its `webhook-id` is a function of its place in the run and of the records in it, so
that a receiver can drop repeats, and drops nothing else: a run that is read anew may hold other records in the same
place. Receivers wait for `run.completed` before they take a run for whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from crdbexport.errors import RecordRefusedError, SinkError
from crdbexport.redaction import keys_in
from crdbexport.retry import RetryPolicy
from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.sinks.webhook_endpoint import SECRET_PREFIX, SECRET_VARIABLE, Endpoint
from crdbexport.sinks.webhook_messages import ABORTED, COMPLETED, event, messages_of

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class WebhookSink(Sink):
    """Sends every batch in messages of bounded size, and the run's end as a message of its own."""

    class Config(SinkConfig, frozen=True, kw_only=True):
        """`secret_env` names the environment variable that holds the endpoint's secret (`whsec_...`)."""

        target: ClassVar[str] = "url"

        url: str
        secret_env: str = SECRET_VARIABLE
        max_records: PositiveInt = 100
        max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 20_000
        request_seconds: Annotated[float, msgspec.Meta(gt=0)] = 15.0
        ca_cert: Path | None = None
        timeout_seconds: float = 900.0

    conformance: ClassVar[str] = "crdbexport.testing.builtin:WebhookConformance"
    config: Config

    def __init__(self, config: Config, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        super().__init__(config)
        self._endpoint = Endpoint(config.url, config.secret_env, sleep)
        self._messages: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._taken = blake2b(digest_size=16)

    def shown_target(self) -> str:
        """The origin alone: paths and queries of webhooks often hold a key."""
        return self._endpoint.origin

    def secrets(self) -> Iterator[str]:
        secret = os.environ.get(self.config.secret_env, "")
        yield from (secret, secret.removeprefix(SECRET_PREFIX), *keys_in(self.config.url))

    def open(self, run: Run) -> None:
        self._endpoint.connect(self.config.request_seconds, self.config.ca_cert)
        self._messages = Counter(dict.fromkeys(run.streams, 0))
        self._taken = blake2b(digest_size=16)

    def write(self, batch: Batch, run: Run) -> None:
        refused: list[str] = []
        reason = ""
        for message in messages_of(batch, run, self.config.max_records, self.config.max_bytes):
            try:
                self._endpoint.post(message)
            except RecordRefusedError as error:
                refused.extend(error.record_ids)
                reason = reason or error.reason
            else:
                self._taken.update(message.id.encode())
                self._messages[batch.stream] += 1
                self._records[batch.stream] += len(message.record_ids)
        if refused:
            raise RecordRefusedError(refused, reason, rest_written=True)

    def commit(self, run: Run, outcome: Outcome) -> Receipt:
        streams = {name: {"records": self._records[name], "messages": count} for name, count in self._messages.items()}
        reasons = Counter(gap.reason for gap in outcome.gaps)
        data: dict[str, Any] = {"complete": outcome.complete, "streams": streams, "gaps": dict(reasons)}
        # A run that was completed before is told of once more: a receiver must not drop that as a repeat.
        again = ("redelivery", self._taken.hexdigest()) if run.redelivery else ()
        self._endpoint.post(event(COMPLETED, run, data | {"redelivery": True} if again else data, key=again))
        self._endpoint.close()
        artifacts = tuple(
            Artifact(location=self._endpoint.origin, stream=name, rows=self._records[name]) for name in self._messages
        )
        return Receipt(artifacts, self._endpoint.bytes_sent)

    def abort(self, run: Run, error: BaseException) -> None:
        # What was taken before stays taken, whatever becomes of the rest.
        if self._endpoint.connected and self._messages.total() and not run.redelivery:
            # If this fails too, the receiver waits for a run.completed that does not come.
            with contextlib.suppress(SinkError):
                self._endpoint.post(event(ABORTED, run, {"error": type(error).__name__}), RetryPolicy(attempts=1))
        self._endpoint.close()
