"""The receiver of webhooks: signing what it gets, sending it, and what its answers mean."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import standardwebhooks

from crdbexport.errors import CertificateError, ConfigError, RecordRefusedError, SinkError, SinkRefusedError
from crdbexport.http import HttpClient, NoReplyError, Reply, tls_context
from crdbexport.retry import RetryPolicy, TransientError, retry_after_seconds, with_retries
from crdbexport.sinks.webhook_messages import Message

SECRET_VARIABLE = "CRDBEXPORT_WEBHOOK_SECRET"  # noqa: S105 (the name of the variable)
SECRET_PREFIX = "whsec_"  # noqa: S105 (so says Standard Webhooks)
SECRET_BYTES = range(24, 65)
READ_BYTES = 4096
RETRY = RetryPolicy(attempts=5, base_seconds=0.5, cap_seconds=20.0)

GONE = 410
RECORDS_AT_FAULT = frozenset({400, 413, 422})
TRY_AGAIN = frozenset({408, 425, 429})


class Endpoint:
    """One URL with its secret; nothing is sent before `connect`. Raises `ConfigError` where one of them is none.

    `origin` is what may be shown of the URL.
    """

    def __init__(self, url: str, secret_variable: str, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.origin = _checked_origin(url)
        self.bytes_sent = 0
        self._url, self._sleep = url, sleep
        self._signer = standardwebhooks.Webhook(_secret(secret_variable))
        self._runner: asyncio.Runner | None = None
        self._http: HttpClient | None = None

    @property
    def connected(self) -> bool:
        return self._http is not None

    def connect(self, request_seconds: float, ca_cert: Path | None) -> None:
        """Make ready to send; `close` ends it."""
        self._runner = asyncio.Runner()
        self._http = HttpClient(
            timeout_seconds=request_seconds,
            tls=tls_context(ca_cert),
            max_body_bytes=READ_BYTES,
            cut_body=True,
        )

    def close(self) -> None:
        if self._runner is not None and self._http is not None:
            self._runner.run(self._http.__aexit__())
            self._runner.close()
        self._runner = self._http = None

    def post(self, message: Message, policy: RetryPolicy = RETRY) -> None:
        """Send the message, as often as it takes; raises what its refusal means."""
        assert self._runner is not None  # noqa: S101 (a sink connects before it sends)
        self._runner.run(with_retries(lambda: self._attempt(message), policy, sleep=self._sleep))
        self.bytes_sent += len(message.body)

    async def _attempt(self, message: Message) -> None:
        assert self._http is not None  # noqa: S101 (see `post`)
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.id, now, message.body.decode()),
        }
        try:
            reply = await self._http.send("POST", self._url, headers=headers, content=message.body)
        except NoReplyError as error:
            raise TransientError(SinkError(f"{self.origin}: {error}; see that the receiver is up")) from error
        except CertificateError as error:
            raise SinkRefusedError(f"{self.origin}: {error}; name its authority with the option ca_cert") from error
        self._judge(reply, message)

    def _judge(self, reply: Reply, message: Message) -> None:
        status = reply.status
        if 200 <= status < 300:  # noqa: PLR2004 (the class of success)
            return
        what = f"{self.origin} answered {status}"
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


def _checked_origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the target is not a URL; it looks like https://hooks.example.com/crdb")
    if "@" in parts.netloc:
        raise ConfigError("the URL must not hold a user or password; the signature proves who sends")
    return f"{parts.scheme}://{parts.netloc}"


def _secret(variable: str) -> bytes:
    """The secret's bytes; raises `ConfigError` that says how to make one."""
    text = os.environ.get(variable, "")
    advice = (
        f"set {variable} to the endpoint's secret, whsec_ and 24 to 64 random bytes in base64 "
        "(make one with: echo whsec_$(openssl rand -base64 32))"
    )
    if not text:
        raise ConfigError(f"no secret to sign with; {advice}")
    try:
        raw = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"the secret is not base64; {advice}") from error
    if len(raw) not in SECRET_BYTES:
        raise ConfigError(f"the secret has {len(raw)} bytes; {advice}")
    return raw
