"""POSTs of JSON batches, signed as Standard Webhooks says.

A message is sent at least once, and its `webhook-id` is a function of its place in the run and of the records in it, so
that a receiver can drop repeats, and drops nothing else: a run that is read anew may hold other records in the same
place. Receivers wait for `run.completed` before they take a run for whole.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import msgspec
import standardwebhooks

from crdbexport.errors import CertificateError, ConfigError, RecordRefusedError, SinkError, SinkRefusedError
from crdbexport.http import HttpClient, NoReplyError, Reply, tls_context
from crdbexport.redaction import keys_in
from crdbexport.retry import RetryPolicy, TransientError, retry_after_seconds, with_retries
from crdbexport.sinks.base import Artifact, Batch, Outcome, Receipt, Run, Sink, SinkConfig
from crdbexport.sinks.json_lines import json_rows

SECRET_VARIABLE = "CRDBEXPORT_WEBHOOK_SECRET"  # noqa: S105 (the name of the variable)
SECRET_PREFIX = "whsec_"  # noqa: S105 (so says Standard Webhooks)
SECRET_BYTES = range(24, 65)
RECORDS, COMPLETED, ABORTED = "records.batch", "run.completed", "run.aborted"
READ_BYTES = 4096
MANY = 99_999_999
RETRY = RetryPolicy(attempts=5, base_seconds=0.5, cap_seconds=20.0)

GONE = 410
RECORDS_AT_FAULT = frozenset({400, 413, 422})
TRY_AGAIN = frozenset({408, 425, 429})
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class Message(NamedTuple):
    """One POST: its id, its body, and the ids of the records in it."""

    id: str
    body: bytes
    record_ids: Sequence[str] = ()


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
        self._sleep = sleep
        self._origin = _checked_origin(config.url)
        self._signer = standardwebhooks.Webhook(_secret(config.secret_env))
        self._messages: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._bytes_sent = 0
        self._taken = blake2b(digest_size=16)
        self._runner: asyncio.Runner | None = None
        self._http: HttpClient | None = None

    def shown_target(self) -> str:
        """The origin alone: paths and queries of webhooks often hold a key."""
        return self._origin

    def secrets(self) -> Iterator[str]:
        secret = os.environ.get(self.config.secret_env, "")
        yield from (secret, secret.removeprefix(SECRET_PREFIX), *keys_in(self.config.url))

    def open(self, run: Run) -> None:
        self._connect()
        self._messages = Counter(dict.fromkeys(run.streams, 0))
        self._taken = blake2b(digest_size=16)

    def write(self, batch: Batch, run: Run) -> None:
        refused: list[str] = []
        reason = ""
        for message in self._messages_of(batch, run):
            try:
                self._post(message)
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
        self._post(_event(COMPLETED, run, data | {"redelivery": True} if again else data, key=again))
        self._close()
        artifacts = tuple(
            Artifact(location=self._origin, stream=name, rows=self._records[name]) for name in self._messages
        )
        return Receipt(artifacts, self._bytes_sent)

    def abort(self, run: Run, error: BaseException) -> None:
        # What was taken before stays taken, whatever becomes of the rest.
        if self._http is not None and self._messages.total() and not run.redelivery:
            # If this fails too, the receiver waits for a run.completed that does not come.
            with contextlib.suppress(SinkError):
                self._post(_event(ABORTED, run, {"error": type(error).__name__}), RetryPolicy(attempts=1))
        self._close()

    def _connect(self) -> None:
        self._runner = asyncio.Runner()
        self._http = HttpClient(
            timeout_seconds=self.config.request_seconds,
            tls=tls_context(self.config.ca_cert),
            max_body_bytes=READ_BYTES,
            cut_body=True,
        )

    def _close(self) -> None:
        if self._runner is not None and self._http is not None:
            self._runner.run(self._http.__aexit__())
            self._runner.close()
        self._runner = self._http = None

    def _messages_of(self, batch: Batch, run: Run) -> Iterator[Message]:
        rows = json_rows(batch.data)
        ids: list[str] = batch.data.column("record_id").to_pylist()
        room = self.config.max_bytes - len(_event(RECORDS, run, self._data(batch, MANY, [])).body)
        for number, chunk in enumerate(_chunks(rows, self.config.max_records, room)):
            key = (batch.stream, batch.sequence, number, _digest(rows[chunk], run))
            yield _event(RECORDS, run, self._data(batch, number, rows[chunk]), key=key, record_ids=ids[chunk])

    @staticmethod
    def _data(batch: Batch, number: int, rows: Sequence[bytes]) -> dict[str, Any]:
        return {
            "stream": batch.stream,
            "sequence": batch.sequence,
            "chunk": number,
            "records": [msgspec.Raw(row) for row in rows],
        }

    def _post(self, message: Message, policy: RetryPolicy = RETRY) -> None:
        assert self._runner is not None  # noqa: S101 (the lane opens before it writes)
        self._runner.run(with_retries(lambda: self._attempt(message), policy, sleep=self._sleep))
        self._bytes_sent += len(message.body)

    async def _attempt(self, message: Message) -> None:
        assert self._http is not None  # noqa: S101 (see `_post`)
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.id, now, message.body.decode()),
        }
        try:
            reply = await self._http.send("POST", self.config.url, headers=headers, content=message.body)
        except NoReplyError as error:
            raise TransientError(SinkError(f"{self._origin}: {error}; see that the receiver is up")) from error
        except CertificateError as error:
            raise SinkRefusedError(f"{self._origin}: {error}; name its authority with the option ca_cert") from error
        self._judge(reply, message)

    def _judge(self, reply: Reply, message: Message) -> None:
        status = reply.status
        if 200 <= status < 300:  # noqa: PLR2004 (the class of success)
            return
        what = f"{self._origin} answered {status}"
        if status in TRY_AGAIN or status >= 500:  # noqa: PLR2004 (the class of server errors)
            asked = retry_after_seconds(reply.headers.get("retry-after"), reply.headers.get("date"))
            raise TransientError(SinkError(f"{what}; see to the receiver"), retry_after=asked)
        if status in RECORDS_AT_FAULT and message.record_ids:
            raise RecordRefusedError(message.record_ids, f"the receiver answered {status}")
        if status == GONE:
            raise SinkRefusedError(f"{what}: the endpoint is gone; take the sink out of the configuration")
        if status < 400:  # noqa: PLR2004 (the class of redirects)
            raise SinkRefusedError(f"{what}, a redirect, which is not followed; give the final URL")
        raise SinkRefusedError(f"{what}; check the URL and the secret")


def _chunks(rows: Sequence[bytes], max_records: int, max_bytes: int) -> Iterator[slice]:
    """Runs of rows that fit one message; a row that is too large for any goes alone."""
    start = size = 0
    for index, row in enumerate(rows):
        if index > start and (index - start >= max_records or size + len(row) + 1 > max_bytes):
            yield slice(start, index)
            start, size = index, 0
        size += len(row) + 1
    if rows:
        yield slice(start, len(rows))


def _digest(rows: Sequence[bytes], run: Run) -> str:
    """What the records say, apart from when they were read: reading the same again makes no other message."""
    read_at = b'"extracted_at":"%s"' % _rfc3339(run.extracted_at).encode()
    digest = blake2b(digest_size=16)
    for row in rows:
        digest.update(row.replace(read_at, b"", 1) + b"\n")
    return digest.hexdigest()


def _event(
    kind: str,
    run: Run,
    data: Mapping[str, Any],
    *,
    key: Sequence[str | int] = (),
    record_ids: Sequence[str] = (),
) -> Message:
    """A message about the run; nothing in it depends on when or how often it is sent."""
    about = {
        "cluster": run.cluster,
        "run_id": run.run_id,
        "logical_time": _rfc3339(run.logical_time),
        "extracted_at": _rfc3339(run.extracted_at),
        "sink": run.sink_name,
    }
    body = msgspec.json.encode({"type": kind, "timestamp": _rfc3339(run.extracted_at), "data": {**about, **data}})
    identity = msgspec.json.encode([run.cluster, run.run_id, run.sink_name, kind, *key])
    return Message(f"crdbexport_{blake2b(identity, digest_size=16).hexdigest()}", body, record_ids)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _checked_origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("webhook: the target is not a URL; it looks like https://hooks.example.com/crdb")
    if "@" in parts.netloc:
        raise ConfigError("webhook: the URL must not hold a user or password; the signature proves who sends")
    return f"{parts.scheme}://{parts.netloc}"


def _secret(variable: str) -> bytes:
    """The secret's bytes; raises `ConfigError` that says how to make one."""
    text = os.environ.get(variable, "")
    advice = (
        f"set {variable} to the endpoint's secret, whsec_ and 24 to 64 random bytes in base64 "
        "(make one with: echo whsec_$(openssl rand -base64 32))"
    )
    if not text:
        raise ConfigError(f"webhook: no secret to sign with; {advice}")
    try:
        raw = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"webhook: the secret is not base64; {advice}") from error
    if len(raw) not in SECRET_BYTES:
        raise ConfigError(f"webhook: the secret has {len(raw)} bytes; {advice}")
    return raw
