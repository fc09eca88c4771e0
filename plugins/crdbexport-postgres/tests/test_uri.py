from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import pytest
from crdbexport_postgres.uri import ConnectionURI

from crdbexport import ConfigError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (
            "postgresql://me:hidden@db.example:5433/clusters?sslmode=verify-full",
            "postgresql://db.example:5433/clusters",
        ),
        ("postgres://db1,db2:5433/clusters", "postgresql://db1,db2:5433/clusters"),
        ("postgresql:///clusters?host=/run/postgresql&password=hidden", "postgresql:///clusters"),
        ("postgresql://me:hid?den#x@db/clusters", "postgresql://db/clusters"),
        ("postgresql://me:hid/den@db/clusters", "postgresql://..."),
        ("postgresql://me:hid/den?x@db/clusters", "postgresql://..."),
    ],
)
def test_a_target_is_shown_without_what_may_be_secret(uri: str, shown: str) -> None:
    assert ConnectionURI(uri).shown == shown


@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        ("postgresql://me:s%40cret@db/clusters", "s@cret"),
        ("postgresql://me:s/cret@db/clusters", "s/cret"),
        ("postgresql://me:s?cret#@db/clusters", "s?cret#"),
        ("postgresql://me@db/clusters?password=short", "short"),
        ("postgresql://me@db/clusters?sslpassword=ofthekey", "ofthekey"),
    ],
)
def test_passwords_in_a_uri_are_secrets_wherever_they_stand(uri: str, secret: str) -> None:
    assert secret in set(ConnectionURI(uri).secrets())


def test_passwords_of_the_environment_and_of_its_files_are_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pgpass").write_text("# old\ndb:5432:*:me:in\\:the\\\\home\n")
    (tmp_path / "services").write_text("[clusters]\nhost=db\npassword=of-the-service\n")
    monkeypatch.setenv("PGPASSWORD", "of-the-variable")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert {"in:the\\home", "of-the-service", "of-the-variable"} <= set(ConnectionURI("postgresql://db/x").secrets())
    (tmp_path / "mine").write_text("*:*:*:*:elsewhere\n")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "mine"))
    assert "elsewhere" in set(ConnectionURI("postgresql://db/x").secrets())


@pytest.mark.parametrize("uri", ["mysql://me:hidden@db/x", "host=db password=hidden", "", "db.example"])
def test_what_is_no_uri_is_refused_without_being_quoted(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"option uri: .*postgresql://user@host/database") as caught:
        ConnectionURI(uri)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["postgresql://db/x", "postgresql://db/x?sslmode=verify-full", "postgresql://a:b?c@db/x"]
)
def test_a_connection_is_bounded_in_time_and_speaks_utf8(uri: str) -> None:
    completed = ConnectionURI(uri).completed(None)
    query = parse_qs(completed.removeprefix("postgresql://a:b?c@").partition("?")[2])
    assert completed.startswith(uri)
    assert (query["connect_timeout"], query["client_encoding"]) == (["10"], ["UTF8"])
    assert "sslmode" not in query or query["sslmode"] == ["verify-full"]


def test_what_the_user_says_of_timeouts_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ConnectionURI("postgresql://db/x?connect_timeout=3").completed(None)
    assert parse_qs(given.partition("?")[2])["connect_timeout"] == ["3"]
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in ConnectionURI("postgresql://db/x").completed(None)


def test_a_password_given_by_option_goes_last_and_is_quoted() -> None:
    assert ConnectionURI("postgresql://me:old@db/x").completed("n&w?").endswith("&password=n%26w%3F")
