"""Kept connections: whose answer is whose, what is no answer at all, and what is never sent."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdbexport.carrier import KEPT_SECONDS
from crdbexport.connection import HELD_BYTES, MAX_HEADER_BYTES, Connection, Origin
from crdbexport.errors import ConfigError
from crdbexport.http import HttpClient, NoReplyError
from tests.raw_server import RawServer, Script, a_socket, head, raw_server, says, then_silence, whole

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
OWN, FOREIGN = whole(b"own"), whole(b"foreign")

Asking = Callable[[HttpClient, RawServer], Awaitable[Any]]


def told(script: Script, asking: Asking, *, keeps: bool = True, **options: Any) -> tuple[Any, RawServer]:
    """What `asking` returns, and what reached a server that follows the script for each request."""

    async def main() -> tuple[Any, RawServer]:
        client = HttpClient(**{"timeout_seconds": 5.0, "tls": NO_TLS, **options})
        async with raw_server(script, keeps=keeps) as server, client as http:
            return await asking(http, server), server

    return asyncio.run(main())


def bodies(count: int) -> Asking:
    """The bodies of so many answers, asked for one after the other."""

    async def asking(http: HttpClient, server: RawServer) -> list[bytes]:
        found = []
        for _ in range(count):
            found.append((await http.send("GET", f"{server.url}/")).body)
            await asyncio.sleep(0.01)
        return found

    return asking


def trouble(script: Script, **options: Any) -> tuple[str, RawServer]:
    async def asking(http: HttpClient, server: RawServer) -> str:
        with pytest.raises(NoReplyError) as caught:
            await http.send("GET", f"{server.url}/")
        return caught.value.trouble

    return told(script, asking, **options)


def test_requests_follow_each_other_on_one_connection() -> None:
    found, server = told(says(OWN), bodies(3))
    assert (found, server.accepted) == ([b"own"] * 3, 1)


def test_requests_side_by_side_take_no_more_connections_than_allowed() -> None:
    async def asking(http: HttpClient, server: RawServer) -> int:
        replies = await asyncio.gather(*(http.send("GET", f"{server.url}/") for _ in range(20)))
        return len(replies)

    found, server = told(says(OWN), asking, connections=3)
    assert (found, server.accepted) == (20, 3)


@pytest.mark.parametrize(
    "pieces", [(OWN + FOREIGN,), (OWN + b"x",), (OWN, FOREIGN)], ids=["at once", "no HTTP", "later"]
)
def test_an_answer_that_nobody_asked_for_is_nobodys(pieces: tuple[bytes, ...]) -> None:
    found, server = told(says(*pieces, every_seconds=0.002), bodies(3))
    assert found == [b"own"] * 3
    assert server.accepted == 3


@pytest.mark.parametrize("surplus", [FOREIGN, b""], ids=["an answer", "the end"])
def test_what_came_while_the_loop_stood_still_is_not_taken_for_the_next_answer(surplus: bytes) -> None:
    """A sink's loop stands still between its posts."""
    with a_socket() as listening:
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

        def serve() -> None:
            for answer in (b"first", b"second"):
                peer, _ = listening.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(whole(answer))
                    time.sleep(0.02)
                    peer.sendall(surplus)
                    if surplus:
                        with suppress(ConnectionError):
                            peer.recv(65536)

        server = threading.Thread(target=serve)
        server.start()
        client = HttpClient(timeout_seconds=5.0, tls=NO_TLS)
        with asyncio.Runner() as runner:
            found = []
            for _ in range(2):
                found.append(runner.run(client.send("GET", url)).body)
                time.sleep(0.05)
            runner.run(client.__aexit__())
        server.join()
    assert found == [b"first", b"second"]


def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    found, server = told(says(OWN), bodies(3), keeps=False)
    assert (found, server.accepted) == ([b"own"] * 3, 3)


@pytest.mark.parametrize(
    "answer", [head("Content-Length: 0", "Connection: close"), head("Content-Length: 0", status="HTTP/1.0 200 OK")]
)
def test_a_connection_that_shall_end_is_not_used_again(answer: bytes) -> None:
    assert told(says(answer), bodies(2))[1].accepted == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        await bodies(1)(http, server)
        loop = asyncio.get_running_loop()
        clock = loop.time
        loop.time = lambda: clock() + KEPT_SECONDS  # type: ignore[method-assign]
        await bodies(1)(http, server)

    assert told(says(OWN), asking)[1].accepted == 2


def test_a_request_that_was_given_up_leaves_nothing_to_the_next() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(OWN)

    async def asking(http: HttpClient, server: RawServer) -> bytes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await http.send("GET", f"{server.url}/first")
        return (await http.send("GET", f"{server.url}/second")).body

    found, server = told(late, asking)
    assert (found, server.accepted) == (b"own", 2)


def test_idle_connections_to_elsewhere_make_room() -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        async with raw_server(says(OWN), keeps=True) as other:
            for _ in range(3):
                await bodies(1)(http, server)
                await bodies(1)(http, other)
            assert other.accepted == 3

    assert told(says(OWN), asking, connections=1)[1].accepted == 3


def test_busy_and_idle_connections_together_are_no_more_than_allowed() -> None:
    async def asking(http: HttpClient, server: RawServer) -> int:
        async with raw_server(then_silence()) as silent, raw_server(says(OWN), keeps=True) as other:
            await asyncio.gather(*(bodies(1)(http, server) for _ in range(3)))
            waiting = [asyncio.ensure_future(http.send("GET", silent.url)) for _ in range(2)]
            await asyncio.sleep(0.02)
            await bodies(1)(http, other)
            idle = len(http._carrier._idle)  # type: ignore[attr-defined]
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
            return idle

    assert told(says(OWN, every_seconds=0.01), asking, connections=3)[0] == 1


@pytest.mark.filterwarnings("error")
def test_a_request_that_is_given_up_while_it_connects_leaves_no_socket_behind() -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        for turns in range(30):
            request = asyncio.ensure_future(http.send("GET", f"{server.url}/"))
            for _ in range(turns):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
        gc.collect()

    told(says(OWN), asking)


def test_a_client_that_ends_closes_what_is_given_back_later() -> None:
    async def asking(http: HttpClient, server: RawServer) -> bool:
        late = asyncio.ensure_future(http.send("GET", f"{server.url}/"))
        await asyncio.sleep(0.02)
        await http.__aexit__()
        await late
        return http._carrier._idle == []  # type: ignore[attr-defined]

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(OWN)

    assert told(slow, asking)[0]


def test_a_request_is_sent_once_though_the_server_hangs_up_on_a_kept_connection() -> None:
    answers = [OWN]

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not answers:
            writer.transport.abort()
            raise ConnectionError
        writer.write(answers.pop())

    async def asking(http: HttpClient, server: RawServer) -> None:
        await bodies(1)(http, server)
        with pytest.raises(NoReplyError, match="broke"):
            await http.send("GET", f"{server.url}/")

    assert len(told(once, asking)[1].heads) == 2


def test_what_comes_before_the_answer_is_passed_over() -> None:
    early = head("Link: </style.css>", status="HTTP/1.1 103 Early Hints")
    found, server = told(says(head(status="HTTP/1.1 100 Continue") + early + OWN), bodies(2))
    assert (found, server.accepted) == ([b"own"] * 2, 1)


def test_a_body_without_content_is_whole_at_once() -> None:
    assert told(then_silence(head(status="HTTP/1.1 204 No Content")), bodies(1))[0] == [b""]


CHUNKED = "Transfer-Encoding: chunked"


def test_chunks_make_one_body_and_what_stands_behind_them_is_no_header() -> None:
    async def asking(http: HttpClient, server: RawServer) -> Any:
        return await http.send("GET", f"{server.url}/")

    reply, _ = told(says(head(CHUNKED) + b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\nRetry-After: 3\r\n\r\n"), asking)
    assert reply.body == b"{}"
    assert "retry-after" not in reply.headers


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(head("Content-Length: 3", "Content-Length: 4") + b"abcd", id="two lengths"),
        pytest.param(head("Content-Length: 3", CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n", id="length and chunks"),
        pytest.param(head("Content-Length: -3") + b"abc", id="a length below nothing"),
        pytest.param(head("Content-Length: 3", "A: b\r\n c") + b"abc", id="a folded header"),
        pytest.param(head("A : b"), id="a space in a name"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare line feeds"),
        pytest.param(head(CHUNKED) + b"zz\r\n", id="chunks without a size"),
        pytest.param(
            head("Upgrade: h2c", "Connection: upgrade", status="HTTP/1.1 101 Switching"), id="another protocol"
        ),
        pytest.param(b"<html>", id="no HTTP"),
    ],
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    assert trouble(then_silence(answer))[0] == "broken"


@pytest.mark.parametrize("endless", [b"X: " + b"y" * 1000 + b"\r\n", b"\r\n" + head(status="HTTP/1.1 103 Early Hints")])
def test_headers_without_end_are_refused(endless: bytes) -> None:
    start = b"HTTP/1.1 103 Early Hints\r\n"
    flood = then_silence(start + endless * (2 * MAX_HEADER_BYTES // len(endless)))
    assert trouble(flood)[0] == "broken"


def test_headers_behind_a_body_are_bounded_too() -> None:
    flood = head(CHUNKED) + b"1\r\nx\r\n0\r\nX: " + b"y" * 2 * MAX_HEADER_BYTES
    assert trouble(then_silence(flood), timeout_seconds=2.0)[0] == "broken"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "https:///x"])
def test_what_is_no_address_is_a_configuration_error(url: str) -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        with pytest.raises(ConfigError):
            await http.send("GET", url)

    told(says(OWN), asking)


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_that_would_become_two_is_not_sent(value: str) -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        with pytest.raises(ConfigError, match="HTTP cannot carry"):
            await http.send("GET", f"{server.url}/", headers={"X-Token": value})

    assert told(says(OWN), asking)[1].heads == []


@pytest.mark.parametrize("below", ["a b", "a\r\nX: y", "a HTTP/1.1\r\n\r\nGET /b"])
def test_a_path_that_would_become_a_header_is_not_sent(below: str) -> None:
    async def asking(http: HttpClient, server: RawServer) -> None:
        with pytest.raises(ConfigError, match="HTTP cannot carry"):
            await http.send("GET", f"{server.url}/", below=below)

    assert told(says(OWN), asking)[1].heads == []


class Wire(asyncio.Transport):
    """The far end of a connection, which remembers whether it may go on."""

    reading = True
    open = True

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return not self.open

    def abort(self) -> None:
        self.open = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def wired() -> tuple[Connection, Wire]:
    connection, wire = Connection(Origin("node", 8080, tls=False)), Wire()
    connection.connection_made(wire)
    return connection, wire


ANSWERS = {
    "length": head("Content-Length: 5") + b"a\r\n\r\n",
    "chunks": head(CHUNKED) + b"2\r\na\r\r\n3\r\n\n\r\n\r\n0\r\n\r\n",
    "hints": head(status="HTTP/1.1 103 Early Hints") + head("Content-Length: 5") + b"a\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@given(data=st.data())
def test_an_answer_is_the_same_wherever_it_is_split(answer: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1))))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]

    async def main() -> tuple[int, bytes, bool]:
        connection, _ = await wired()
        asking = asyncio.ensure_future(connection.ask(b"GET"))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        status, _ = await asking
        body = b"".join([chunk async for chunk in connection.body()])
        return status, body, connection.reusable

    assert asyncio.run(main()) == (200, b"a\r\n\r\n", True)


def test_a_body_that_nobody_reads_waits_in_the_kernel() -> None:
    async def main() -> None:
        connection, wire = await wired()
        asking = asyncio.ensure_future(connection.ask(b"GET"))
        await asyncio.sleep(0)
        connection.data_received(head("Content-Length: 10000000") + bytes(HELD_BYTES))
        await asking
        assert wire.reading
        connection.data_received(b"x")
        assert not wire.reading
        body = connection.body()
        assert len(await anext(body) + await anext(body)) == HELD_BYTES + 1
        more = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0)
        assert wire.reading
        connection.data_received(b"y")
        assert await more == b"y"

    asyncio.run(main())
