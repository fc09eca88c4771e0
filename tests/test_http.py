"""The HTTP client against a server of raw sockets, which alone can cut, reset, trickle and fall silent."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
import struct
import threading
import time
import tracemalloc
import zlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from crdbexport.errors import CertificateError, ConfigError
from crdbexport.http import HttpClient, NoReplyError, Reply, tls_context
from tests.raw_server import Script, a_socket, head, raw_server, says, then_silence, whole

TOKEN = {"X-Cockroach-API-Session": "a-token"}
# The authorities of the system take 20 ms to load, and only the tests of TLS need any.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def reset_midway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(head("Content-Length: 100") + b'{"databases"')
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def ask(script: Script, **options: Any) -> Reply:
    """The reply to one GET of a server that follows the script."""

    async def main() -> Reply:
        async with raw_server(script) as server, a_client(**options) as http:
            return await http.send("GET", f"{server.url}/api/v2/databases", headers=TOKEN)

    return asyncio.run(main())


def a_client(**options: Any) -> HttpClient:
    return HttpClient(**{"timeout_seconds": 5.0, "tls": NO_TLS, **options})


def trouble(script: Script, **options: Any) -> str:
    with pytest.raises(NoReplyError) as caught:
        ask(script, **options)
    return caught.value.trouble


def test_a_whole_reply_has_status_lower_case_headers_and_body() -> None:
    reply = ask(says(whole(b"{}", "Content-Type: application/json", "Retry-After: 3")))
    assert (reply.status, reply.body) == (200, b"{}")
    assert (reply.headers["content-type"], reply.headers["retry-after"]) == ("application/json", "3")


def test_an_error_status_is_a_reply_too() -> None:
    reply = ask(says(head("Content-Length: 4", status="HTTP/1.1 503 Service Unavailable") + b"busy"))
    assert (reply.status, reply.body) == (503, b"busy")


def test_a_request_names_the_program_and_asks_for_gzip_only() -> None:
    heads: list[bytes] = []

    async def main() -> None:
        async with raw_server(says(whole(b"{}"))) as server, a_client() as http:
            await http.send("GET", f"{server.url}/api/v2/a%2Fb/50%25", headers=TOKEN)
            heads.extend(server.heads)

    asyncio.run(main())
    (sent,) = heads
    assert sent.startswith(b"GET /api/v2/a%2Fb/50%25 HTTP/1.1\r\n")
    assert re.search(rb"(?i)\r\nuser-agent: crdbexport/[0-9.]+\r\n", sent)
    assert re.search(rb"(?i)\r\naccept-encoding: gzip\r\n", sent)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(says(head("Content-Length: 100") + b'{"databases"'), id="shorter than its length"),
        pytest.param(says(head("Transfer-Encoding: chunked") + b'5\r\n{"dat\r\n'), id="chunked, cut"),
        pytest.param(reset_midway, id="reset"),
        pytest.param(says(), id="closed without a word"),
        pytest.param(says(b"R\x00\x00\x00\x08"), id="not HTTP"),
        pytest.param(says(head()[:-2]), id="cut in the headers"),
    ],
)
def test_a_reply_that_breaks_off_is_broken(script: Script) -> None:
    assert trouble(script) == "broken"


def test_a_body_without_length_ends_with_its_connection() -> None:
    # Nothing tells that it was cut: whoever decodes it has to refuse a document that is not whole.
    assert ask(says(head(status="HTTP/1.0 200 OK") + b'{"databases": [')).body == b'{"databases": ['


@pytest.mark.parametrize("size", [0, 1, 1_000, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_gzip_reply_is_decoded(size: int) -> None:
    body = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
    assert ask(says(whole(gzip.compress(body, 1), "Content-Encoding: gzip"))).body == body


@pytest.mark.parametrize("cut", [1, 8, 9, 20])
def test_gzip_cut_short_is_broken_though_its_length_matches(cut: int) -> None:
    packed = gzip.compress(b'{"databases": []}' * 50)
    assert trouble(says(whole(packed[:-cut], "Content-Encoding: gzip"))) == "broken"


@pytest.mark.parametrize("body", [b"{}", b"\x1f\x8b\x08\x00garbage"])
def test_a_reply_that_claims_to_be_gzip_and_is_not_is_broken(body: bytes) -> None:
    assert trouble(says(whole(body, "Content-Encoding: gzip"))) == "broken"


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "x"])
def test_an_encoding_that_was_not_asked_for_is_broken(encoding: str) -> None:
    assert trouble(says(whole(b"{}", f"Content-Encoding: {encoding}"))) == "broken"


def test_a_gzip_bomb_is_refused_within_bounded_memory() -> None:
    bomb, cap = a_bomb(), 4 * 2**20
    assert len(bomb) < 1.2 * 2**20
    tracemalloc.start()
    try:
        assert trouble(says(whole(bomb, "Content-Encoding: gzip")), max_body_bytes=cap) == "too_large"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * cap


def a_bomb() -> bytes:
    """1 MB that unpacks to 1 GiB: one packed block of zeros, over and over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * 1024


def test_a_body_at_the_cap_is_read_and_one_byte_more_is_too_large() -> None:
    assert ask(says(whole(b"x" * 1000)), max_body_bytes=1000).body == b"x" * 1000
    assert trouble(says(whole(b"x" * 1001)), max_body_bytes=1000) == "too_large"


def test_a_body_over_the_cap_is_refused_without_waiting_for_its_end() -> None:
    endless = then_silence(head("Content-Length: 1000000000") + b"x" * 1001)
    started = time.monotonic()
    assert trouble(endless, max_body_bytes=1000) == "too_large"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_body_is_read_up_to_the_cap_and_no_further(packed: bool) -> None:
    if packed:
        endless = then_silence(head("Content-Length: 1000000000", "Content-Encoding: gzip") + a_bomb()[:50_000])
    else:
        endless = then_silence(head("Content-Length: 1000000000") + b"\0" * 1500)
    started = time.monotonic()
    reply = ask(endless, max_body_bytes=1000, cut_body=True)
    assert (reply.status, reply.body) == (200, b"\0" * 1000)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(then_silence(), id="no answer"),
        pytest.param(then_silence(head("Content-Length: 10")), id="no body"),
        pytest.param(says(*[bytes([each]) for each in head("X: y" * 20)], every_seconds=0.05), id="slow head"),
        pytest.param(says(head("Content-Length: 100"), *[b"x"] * 100, every_seconds=0.05), id="slow body"),
    ],
)
def test_a_reply_that_is_not_whole_at_the_deadline_is_a_timeout(script: Script) -> None:
    started = time.monotonic()
    assert trouble(script, timeout_seconds=0.12) == "timeout"
    assert 0.1 < time.monotonic() - started < 1


def test_a_port_where_nobody_listens_is_no_connection() -> None:
    async def main(url: str) -> None:
        async with a_client() as http:
            await http.send("GET", url)

    with a_socket() as bound, pytest.raises(NoReplyError, match="cannot connect") as caught:
        asyncio.run(main(f"http://127.0.0.1:{bound.getsockname()[1]}/"))
    assert caught.value.trouble == "connect"


@pytest.mark.slow
def test_a_host_that_lets_nobody_in_is_no_connection_even_where_the_deadline_is_short() -> None:
    async def main() -> None:
        with a_socket() as listening:
            listening.listen(0)
            async with AsyncExitStack() as stack, a_client(timeout_seconds=1.0) as http:
                for _ in range(2):
                    # They fill the queue of a host that accepts nobody; the next one waits for its answer in vain.
                    queued = stack.enter_context(socket.socket())
                    queued.setblocking(False)
                    queued.connect_ex(listening.getsockname())
                await http.send("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/")

    with pytest.raises(NoReplyError) as caught:
        asyncio.run(main())
    assert caught.value.trouble == "connect"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_not_followed(status: int) -> None:
    async def main() -> tuple[Reply, list[bytes]]:
        async with raw_server(says(whole(b"{}"))) as other, a_client() as http:
            elsewhere = head(f"Location: {other.url}/", "Content-Length: 0", status=f"HTTP/1.1 {status} Moved")
            async with raw_server(says(elsewhere)) as first:
                return await http.send("GET", first.url, headers=TOKEN), other.heads

    reply, seen_elsewhere = asyncio.run(main())
    assert reply.status == status
    assert seen_elsewhere == []


@pytest.mark.parametrize(("trust_env", "asked"), [(False, "target"), (True, "proxy")])
def test_a_proxy_of_the_environment_is_used_only_if_asked(
    trust_env: bool, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        async with (
            raw_server(says(whole(b"proxy"))) as proxy,
            raw_server(says(whole(b"target"))) as target,
        ):
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            async with a_client(trust_env=trust_env) as http:
                reply = await http.send("GET", target.url, headers=TOKEN)
            assert (len(proxy.heads), len(target.heads)) == (int(trust_env), int(not trust_env))
            return reply.body.decode()

    assert asyncio.run(main()) == asked


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_a_configuration_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigError, match="proxy"):
        ask(says(whole(b"{}")), trust_env=True)


@pytest.mark.parametrize("port", ["", ":{}"])
def test_a_host_that_needs_no_proxy_is_asked_directly(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> bytes:
        async with raw_server(says(whole(b"{}"))) as server, a_client(trust_env=True) as http:
            monkeypatch.setenv("no_proxy", "127.0.0.1" + port.format(server.port))
            return (await http.send("GET", server.url)).body

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert asyncio.run(main()) == b"{}"


@pytest.mark.parametrize("status", ["204 No Content", "200 OK"])
def test_nothing_is_nothing_though_it_claims_to_be_gzip(status: str) -> None:
    reply = ask(says(head("Content-Encoding: gzip", "Content-Length: 0", status=f"HTTP/1.1 {status}")))
    assert reply.body == b""


@pytest.mark.parametrize("surplus", [b"x", gzip.compress(b"more", mtime=0)], ids=["garbage", "another"])
def test_gzip_that_goes_on_behind_its_end_is_broken(surplus: bytes) -> None:
    assert trouble(says(whole(gzip.compress(b"{}") + surplus, "Content-Encoding: gzip"))) == "broken"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_cert(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def ask_tls(name: str, authority: trustme.CA, trusted: ssl.SSLContext, heads: list[bytes]) -> Reply:
    """Ask 127.0.0.1 over TLS, where the server shows a certificate for `name`; `heads` tells what reached it."""

    async def main() -> Reply:
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(ours)
        async with raw_server(says(whole(b"{}")), tls=ours) as server:
            server.heads = heads
            async with a_client(tls=trusted) as http:
                return await http.send("GET", f"https://127.0.0.1:{server.port}/", headers=TOKEN)

    return asyncio.run(main())


def test_a_certificate_of_the_given_authority_is_accepted(authority: trustme.CA, ca_cert: Path) -> None:
    heads: list[bytes] = []
    assert ask_tls("127.0.0.1", authority, tls_context(ca_cert), heads).body == b"{}"
    assert len(heads) == 1


def test_an_unknown_authority_is_refused_and_nothing_is_sent(authority: trustme.CA) -> None:
    heads: list[bytes] = []
    with pytest.raises(CertificateError, match="unable to get local issuer certificate"):
        ask_tls("127.0.0.1", authority, tls_context(), heads)
    assert heads == []


def test_a_certificate_for_another_host_is_refused_and_nothing_is_sent(authority: trustme.CA, ca_cert: Path) -> None:
    heads: list[bytes] = []
    with pytest.raises(CertificateError, match=r"not valid for '127\.0\.0\.1'"):
        ask_tls("other.example", authority, tls_context(ca_cert), heads)
    assert heads == []


def ask_https_of(handshake: Script) -> None:
    """Ask over TLS a server that follows the script instead of a handshake."""

    async def main() -> None:
        with a_socket() as listening:

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.read(16)
                await handshake(reader, writer)
                writer.close()

            async with await asyncio.start_server(accept, sock=listening), a_client() as http:
                await http.send("GET", f"https://127.0.0.1:{listening.getsockname()[1]}/", headers=TOKEN)

    asyncio.run(main())


def test_https_to_a_plain_port_says_so() -> None:
    with pytest.raises(CertificateError, match="does the port speak plain http"):
        ask_https_of(says(head("Content-Length: 0", status="HTTP/1.0 400 Bad Request")))


def test_a_handshake_that_breaks_off_is_no_connection() -> None:
    # So does a balancer whose nodes are all down: it may pass, and another address may answer.
    with pytest.raises(NoReplyError) as caught:
        ask_https_of(says())
    assert caught.value.trouble == "connect"


def test_a_handshake_that_is_reset_is_no_connection() -> None:
    """Nor does it say anything of a certificate."""
    with a_socket() as listening:
        listening.listen()

        def reset() -> None:
            peer, _ = listening.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

        async def main() -> None:
            async with a_client() as http:
                await http.send("GET", f"https://127.0.0.1:{listening.getsockname()[1]}/")

        server = threading.Thread(target=reset)
        server.start()
        with pytest.raises(NoReplyError) as caught:
            asyncio.run(main())
        server.join()
    assert caught.value.trouble == "connect"


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\x00"])
def test_a_file_without_a_certificate_is_a_configuration_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--ca-cert .*ca\.pem: not a readable PEM certificate"):
        tls_context(path)
