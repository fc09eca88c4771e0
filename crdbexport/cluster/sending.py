"""One request to one address: which one, what its answer says of it, and the count of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from crdbexport.cluster.breaker import CONTINUE
from crdbexport.cluster.endpoint import HEALTH, Endpoint
from crdbexport.cluster.nodes import Node, Nodes
from crdbexport.errors import CertificateError, ClusterUnavailableError, UnreadableError
from crdbexport.http import HttpClient, NoReplyError, Reply
from crdbexport.report import RequestCounts
from crdbexport.retry import TransientError

T = TypeVar("T")
Judge = Callable[[Reply], T]

OUT_OF_SERVICE = 503
# The statuses of a node, or of what stands before it, that cannot answer for anything.
OUT = frozenset({502, OUT_OF_SERVICE, 504})
# A statement that took too long will not be faster the next time.
ATTEMPTS_AFTER_TIMEOUT = 2


class Sender:
    """Sends each request to one of the cluster's addresses, and thinks better or worse of it for the answer.

    `greet` judges the health of an address, which is asked for it before anything secret is sent there; it raises what
    ends the run. `base_url` is the address that was asked last.
    """

    greet: Judge[None] | None = None

    def __init__(self, http: HttpClient, nodes: Nodes, counts: RequestCounts) -> None:
        self._http, self._nodes, self._counts = http, nodes, counts
        self.base_url = ""

    async def ask(
        self,
        endpoint: Endpoint,
        judge: Judge[T],
        headers: Mapping[str, str] | None,
        content: bytes | None,
        tried: list[Node],
    ) -> T:
        """What `judge` makes of the reply. `tried` are the addresses of earlier attempts, and then this one's too."""
        with self._nodes.one(tried[-1] if tried else None) as node:
            tried.append(node)
            try:
                if not node.known and endpoint != HEALTH and self.greet is not None:
                    self.greet(await self._sent(node, HEALTH))
                result = judge(await self._sent(node, endpoint, headers, content))
            except TransientError as error:
                self._counts.failed += 1
                self._think_worse_of(node, error)
                raise
            except BaseException as error:
                self._counts.failed += 1
                if isinstance(error, UnreadableError):
                    self._think_well_of(node)
                raise
            self._think_well_of(node)
            return result

    async def farewell(self, endpoint: Endpoint, headers: Mapping[str, str]) -> Reply:
        """One request without a judgement, to an address that is known."""
        with self._nodes.one() as node:
            return await self._sent(node, endpoint, headers)

    async def _sent(
        self, node: Node, endpoint: Endpoint, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Reply:
        self.base_url = base = node.base_url
        self._counts.total += 1
        try:
            reply = await self._http.send(
                endpoint.method, f"{base}/", below=endpoint.target, headers=headers, content=content
            )
        except NoReplyError as error:
            raise _no_reply(endpoint, base, error) from error
        except CertificateError as error:
            raise CertificateError(
                f"{origin(base)}: {error}; give the cluster's authority with --ca-cert FILE"
            ) from error
        status = str(reply.status)
        self._counts.by_status[status] = self._counts.by_status.get(status, 0) + 1
        return reply

    def _think_well_of(self, node: Node) -> None:
        self._nodes.answered(node)
        node.known = True

    def _think_worse_of(self, node: Node, error: TransientError) -> None:
        final = error.final
        status = final.http_status if isinstance(final, UnreadableError) else None
        if status is None or status in OUT:
            self._nodes.failed(node)
        elif not error.throttled:
            self._nodes.doubted(node)


def _no_reply(endpoint: Endpoint, base: str, error: NoReplyError) -> Exception:
    where = f"{origin(base)}: {error}"
    if error.trouble == "connect":
        return TransientError(ClusterUnavailableError(f"{where}; check --url and that the node is up; {CONTINUE}"))
    what = f"{endpoint} at {where}"
    if error.trouble == "too_large":
        return UnreadableError(what, reason="too_large")
    if error.trouble == "timeout":
        return TransientError(UnreadableError(what, reason="timeout"), attempts=ATTEMPTS_AFTER_TIMEOUT)
    return TransientError(UnreadableError(what, reason="bad_body"))


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
