"""The one door to aiohttp, which carries the requests of httpx: fewer cycles a request, at any number of connections.

httpx's own pool looks at every connection for each request, and takes an answer that nobody asked for as that of the
next request.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
from yarl import URL

# These two follow from the URL and the body.
MADE_ANEW = frozenset({"host", "content-length"})
MAX_HEADER_BYTES = 128 * 1024
NOT_TO_BE_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Carrier(httpx.AsyncBaseTransport):
    """A pool of at most `connections`. It follows nothing, decodes nothing, and keeps no cookies.

    Certificates are verified with `tls`. With `trust_env` it uses the proxies that the environment names. A request
    names its path and query by the extension `target`; of the timeouts in its extensions the one to connect is kept.
    Raises what httpx raises: `ConnectTimeout`, `ConnectError`, `RemoteProtocolError`.
    """

    def __init__(self, *, connections: int, tls: ssl.SSLContext, trust_env: bool) -> None:
        self._connections, self._tls, self._trust_env = connections, tls, trust_env
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:
            self._session = self._opened()
        headers = [(name, value) for name, value in request.headers.multi_items() if name not in MADE_ANEW]
        with _told_as_httpx_does():
            response = await self._session.request(
                request.method,
                # The target is encoded as the server shall read it.
                URL(_origin(request.url) + request.extensions["target"].decode("ascii"), encoded=True),
                headers=headers,
                data=request.content or None,
                allow_redirects=False,
                timeout=_timeout(request.extensions["timeout"]["connect"]),
            )
        return httpx.Response(response.status, headers=list(response.raw_headers), stream=_Body(response))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=self._trust_env,
            skip_auto_headers=NOT_TO_BE_ADDED,
            max_field_size=MAX_HEADER_BYTES,
        )
        # It would send a request again by itself, uncounted, where the server hangs up; there is no public switch.
        session._retry_connection = False
        return session


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx_does():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        """What was read to its end leaves its connection to the next request; any other connection is closed."""
        self._response.release()


@functools.lru_cache(maxsize=16)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=connect_seconds)


@functools.lru_cache(maxsize=16)
def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


@contextmanager
def _told_as_httpx_does() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError) as error:
        raise httpx.ConnectError(str(error)) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise httpx.RemoteProtocolError(str(error)) from error
