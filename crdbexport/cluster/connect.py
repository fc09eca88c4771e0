"""From a configuration to a session: the addresses, the credentials, the TLS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crdbexport.cluster.session import VISIBLE_ASCII, Credentials, Session
from crdbexport.cluster.transport import ClusterTransport
from crdbexport.config import ExportConfig
from crdbexport.credentials import password
from crdbexport.errors import ConfigError
from crdbexport.http import HttpClient, tls_context
from crdbexport.redaction import Redaction
from crdbexport.report import RequestCounts
from crdbexport.retry import RetryPolicy


@asynccontextmanager
async def connected(
    config: ExportConfig,
    counts: RequestCounts,
    retry: RetryPolicy | None = None,
    redaction: Redaction | None = None,
) -> AsyncIterator[Session]:
    """A session with the configured cluster, logged out at the end. `counts` goes on counting to the very last.

    `redaction` learns the tokens of logins before anything is done with them.
    """
    async with HttpClient(
        timeout_seconds=config.timeout,
        connections=config.concurrency + 1,  # One is for asking after the cluster's health while all others wait.
        tls=tls_context(config.ca_cert),
        trust_env=config.trust_env,
    ) as http:
        transport = ClusterTransport(
            http,
            config.base_urls,
            config.concurrency,
            config.max_rps,
            retry or RetryPolicy(),
            counts=counts,
        )
        async with Session(transport, _credentials(config), redaction or Redaction()) as session:
            try:
                yield session
            finally:
                transport.limit.settle()


def _credentials(config: ExportConfig) -> Credentials:
    if config.no_login:
        return Credentials()
    if config.session is not None:
        if not re.search(VISIBLE_ASCII, config.session.reveal()):
            raise ConfigError("CRDBEXPORT_SESSION is no session: it is empty, or holds what no header can carry")
        return Credentials(token=config.session)
    return Credentials(config.username, password(config))
