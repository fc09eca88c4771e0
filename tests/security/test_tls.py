"""Nothing secret travels to whoever cannot prove who it is: counted in the bytes that arrive at a raw listener.

`tests/faults/test_connections.py` has the same for whole runs; here are the certificates and versions that it has not,
and a listener that sees every byte, also before and without TLS.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import crdbexport
from crdbexport import ExportConfig
from crdbexport.config import Secret
from crdbexport.http import tls_context
from crdbexport.retry import RetryPolicy
from tests.canaries import PASSWORD, Canaries

Settings = dict[str, Any]
HANDSHAKE = b"\x16\x03"


class Listener:
    """Takes connections, offers TLS where it has a context, and keeps what arrives: raw, and what TLS held."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.raw = self.plain = b""
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, suppress(OSError):
                    connection.settimeout(2)
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self._context is None:
            self.raw += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        self.raw += connection.recv(65536, socket.MSG_PEEK)
        with self._context.wrap_socket(connection, server_side=True) as secured:
            self.plain += secured.recv(65536)


@pytest.fixture
def listening() -> Iterator[Callable[[ssl.SSLContext | None], Listener]]:
    opened: list[Listener] = []

    def listen(context: ssl.SSLContext | None) -> Listener:
        opened.append(Listener(context))
        return opened[-1]

    yield listen
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_cert(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def of_the_authority(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    context = server_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def of_another_authority(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    return of_the_authority(trustme.CA(), place)


def for_another_host(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    context = server_context()
    authority.issue_cert("node.example.com").configure_cert(context)
    return context


def expired(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    context = server_context()
    then = datetime.now(UTC) - timedelta(days=1)
    authority.issue_cert("127.0.0.1", not_before=then - timedelta(days=9), not_after=then).configure_cert(context)
    return context


def self_signed(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (place / "self.pem").write_bytes(pem)
    context = server_context()
    context.load_cert_chain(place / "self.pem")
    return context


def of_an_old_version(authority: trustme.CA, place: Path) -> ssl.SSLContext:
    context = of_the_authority(authority, place)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.fixture
def attempt(settings: Settings, ca_cert: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., crdbexport.RunReport]:
    """An export that trusts the authority and has no patience."""
    monkeypatch.setattr("crdbexport.cluster.connect.RetryPolicy", lambda: RetryPolicy(attempts=1))

    def run(url: str, **changes: Any) -> crdbexport.RunReport:
        return crdbexport.export(ExportConfig(**{**settings, "url": (url,), "ca_cert": ca_cert, **changes}))

    return run


@pytest.mark.parametrize(
    ("shows", "reason"),
    [
        (of_another_authority, "unable to get local issuer certificate"),
        (self_signed, "self-signed certificate"),
        (expired, "certificate has expired"),
        (for_another_host, "not valid for '127.0.0.1'"),
        (of_an_old_version, "PROTOCOL_VERSION"),
        (None, "does the port speak plain http"),
    ],
)
@pytest.mark.parametrize("credential", ["password", "session"])
def test_no_byte_of_a_credential_reaches_who_cannot_prove_itself(
    attempt: Callable[..., crdbexport.RunReport],
    listening: Callable[..., Listener],
    authority: trustme.CA,
    canaries: Canaries,
    tmp_path: Path,
    shows: Callable[..., ssl.SSLContext] | None,
    reason: str,
    credential: str,
) -> None:
    (tmp_path / "server").mkdir()
    listener = listening(shows(authority, tmp_path / "server") if shows else None)
    token = Secret("s3ssion-token-of-the-user")
    given = {"session": token, "username": None, "password": None} if credential == "session" else {}
    report = attempt(f"https://{listener.address}", **given)
    assert report.exit_code == 4
    assert reason in (report.error or "")
    assert listener.raw.startswith(HANDSHAKE)
    assert listener.plain == b""
    canaries.assert_hidden(tmp_path / "lake", listener.raw.decode("latin-1"), token.reveal())


def test_the_listener_sees_what_travels_to_who_proves_itself(
    attempt: Callable[..., crdbexport.RunReport],
    listening: Callable[..., Listener],
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    listener = listening(of_the_authority(authority, tmp_path))
    attempt(f"https://{listener.address}")
    assert listener.plain.startswith(b"GET /api/v2/health")
    assert PASSWORD.encode() not in listener.plain


def test_no_configuration_of_the_system_lets_old_versions_in(ca_cert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []

    def lax(**given: Any) -> ssl.SSLContext:
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        with pytest.warns(DeprecationWarning):
            made[-1].minimum_version = ssl.TLSVersion.TLSv1
        return made[-1]

    monkeypatch.setattr("ssl.create_default_context", lax)
    assert tls_context(ca_cert).minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(made) == 1
