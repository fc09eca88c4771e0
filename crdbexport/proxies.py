"""Requests through the proxies that the environment names, for those who ask for that."""

from __future__ import annotations

import ssl
from urllib.request import getproxies, proxy_bypass

import httpx

from crdbexport.errors import ConfigError

KEPT_SECONDS = 15.0
UNUSABLE = "the environment names a proxy that cannot be used; it takes http:// and https://"


class EnvironmentProxies(httpx.AsyncBaseTransport):
    """Sends what a proxy of the environment is for through it, by httpx's own transport, and the rest by `direct`.

    Raises `ConfigError` for a proxy that cannot be used.
    """

    def __init__(self, direct: httpx.AsyncBaseTransport, *, connections: int, tls: ssl.SSLContext) -> None:
        self._direct, self._tls = direct, tls
        self._limits = httpx.Limits(max_connections=connections, keepalive_expiry=KEPT_SECONDS)
        self._by_proxy: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxies = getproxies()
        proxy = proxies.get(request.url.scheme) or proxies.get("all")
        if proxy is None or _needs_none(request.url):
            return await self._direct.handle_async_request(request)
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._through(proxy)
        return await self._by_proxy[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        await self._direct.aclose()
        for transport in self._by_proxy.values():
            await transport.aclose()

    def _through(self, proxy: str) -> httpx.AsyncHTTPTransport:
        try:
            address = proxy if "://" in proxy else f"http://{proxy}"
            return httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=self._limits, proxy=address)
        except (ValueError, ImportError, httpx.InvalidURL):
            # The address may hold a password, and their messages a part of it.
            raise ConfigError(UNUSABLE) from None


def _needs_none(url: httpx.URL) -> bool:
    # An entry of no_proxy may name a port, and then one that the URL leaves out.
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return bool(proxy_bypass(url.host) or proxy_bypass(f"{url.host}:{port}"))
