"""The one door to httpx: a request with a total deadline, a bounded body, no redirects and no environment.

Requests go to the carrier without a client of httpx around it: that is where redirects, cookies and logs of whole URLs
would come from. Facts that shaped the rest: a read timeout does not end a server that sends a byte now and then; a body
without a length, or gzip cut short, ends without an error; 1 MB of gzip may become 1 GiB.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from crdbexport import __version__
from crdbexport.carrier import Carrier
from crdbexport.errors import CertificateError, ConfigError
from crdbexport.proxies import EnvironmentProxies

USER_AGENT = f"crdbexport/{__version__}"
MAX_BODY_BYTES = 64 * 1024 * 1024
CONNECT_SECONDS = 10.0
# Less than the whole, so that a host that lets nobody in is told from one that does not answer.
CONNECT_SHARE = 0.9
GZIP_WINDOW = 31
STEP_BYTES = 1024 * 1024
# Addresses and sets of headers that are not parsed again; a run has a few of each.
KEPT = 16

Trouble = Literal["connect", "timeout", "broken", "too_large"]


class NoReplyError(Exception):
    """No usable reply arrived. `trouble` says how far it got: `connect` means that nothing was sent."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble


@dataclass(frozen=True)
class Reply:
    """A whole reply. Header names are lower-case; `body` is decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests over a pool of at most `connections`; use as an async context manager.

    `timeout_seconds` bounds a request from connecting to the last byte of its body. A body larger than
    `max_body_bytes` is an error, or with `cut_body` is read so far and no further.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float,
        connections: int = 1,
        tls: ssl.SSLContext | None = None,
        trust_env: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        cut_body: bool = False,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._cut_body = cut_body
        self._headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"}
        self._extensions = {"timeout": {"connect": min(CONNECT_SECONDS, timeout_seconds * CONNECT_SHARE)}}
        self._address = functools.lru_cache(maxsize=KEPT)(httpx.URL)
        self._merged = functools.lru_cache(maxsize=KEPT)(self._merge)
        tls = tls or tls_context()
        self._carrier: httpx.AsyncBaseTransport = Carrier(connections=connections, tls=tls)
        if trust_env:
            self._carrier = EnvironmentProxies(self._carrier, connections=connections, tls=tls)

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._carrier.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        below: str = "",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """One request, one reply; `below` is put behind the URL, and is percent-encoded already.

        Raises `NoReplyError`, `CertificateError`, or `ConfigError` for what is no URL.
        """
        try:
            request = self._request(method, url, below, headers or {}, content)
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._carrier.handle_async_request(request)
                try:
                    body = await _read(response, self._max_body_bytes, cut=self._cut_body)
                finally:
                    await response.aclose()
            return Reply(response.status_code, response.headers, body)
        except httpx.ConnectTimeout as error:
            raise NoReplyError("no connection within the time allowed", "connect") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise NoReplyError(f"no whole answer within {self._timeout_seconds:g} s", "timeout") from error
        except httpx.ConnectError as error:
            raise _connect_trouble(error) from error
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise ConfigError(f"{error}; look at the URL, and at the headers that were configured") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise NoReplyError("the connection broke before the answer was whole", "broken") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ConfigError("the URL names no host that could be asked; check its spelling") from error

    def _request(
        self, method: str, url: str, below: str, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Request:
        """Only what differs is made anew: the address and the headers are those of thousands of requests."""
        address = self._address(url)
        request = httpx.Request(
            method,
            address,
            headers=self._merged(url, tuple(headers.items())),
            # Told as a stream, nothing is no reason to look through the headers again.
            **({"stream": httpx.ByteStream(b"")} if method == "GET" else {"content": content}),
            extensions={**self._extensions, "target": address.raw_path + below.encode("ascii")},
        )
        request.read()
        return request

    def _merge(self, url: str, own: tuple[tuple[str, str], ...]) -> httpx.Headers:
        return httpx.Headers({"Host": self._address(url).netloc.decode("ascii"), **self._headers, **dict(own)})


def tls_context(ca_cert: Path | None = None) -> ssl.SSLContext:
    """Certificates are always verified: against `ca_cert` if it is given, else against the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=str(ca_cert) if ca_cert else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca-cert {ca_cert}: not a readable PEM certificate ({error})") from error
    # The default since Python 3.10, which a system's OpenSSL configuration may lower.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _connect_trouble(error: httpx.ConnectError) -> NoReplyError | CertificateError:
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateError(f"TLS: {cause.verify_message or cause.reason}")
        if isinstance(cause, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            continue  # What asyncio was waiting for when the connection ended.
        # A handshake that breaks off proves nothing: a balancer whose nodes are all down does that too.
        if isinstance(cause, ssl.SSLEOFError):
            break
        if isinstance(cause, ssl.SSLError):
            return CertificateError(f"TLS: {cause.reason or 'no handshake'}, does the port speak plain http")
    return NoReplyError(f"cannot connect ({error})", "connect")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


async def _read(response: httpx.Response, limit: int, *, cut: bool) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 (the carrier's)
    stream: httpx.AsyncByteStream = response.stream
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        chunks = aiter(stream)
    elif encoding == "gzip":
        chunks = _gunzipped(aiter(stream))
    else:
        raise NoReplyError("the answer has a content-encoding that was not asked for", "broken")
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            if cut:
                return bytes(body[:limit])
            body.clear()  # The error lives longer, and this frame with it.
            raise NoReplyError(f"the answer is larger than {limit} bytes", "too_large")
    return bytes(body)


async def _gunzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decodes in bounded steps and demands the trailer and nothing behind it: a part is not taken for the whole."""
    decoder = zlib.decompressobj(GZIP_WINDOW)
    began = False
    try:
        async for chunk in chunks:
            began = True
            rest, piece = chunk, b""
            while not decoder.eof and (rest or len(piece) == STEP_BYTES):
                piece = decoder.decompress(rest, STEP_BYTES)
                rest = decoder.unconsumed_tail
                yield piece
            if decoder.eof and (rest or decoder.unused_data):
                raise NoReplyError("the gzip answer goes on behind its end", "broken")
    except zlib.error as error:
        raise NoReplyError("the answer is not valid gzip", "broken") from error
    if began and not decoder.eof:
        raise NoReplyError("the gzip answer was cut short", "broken")
