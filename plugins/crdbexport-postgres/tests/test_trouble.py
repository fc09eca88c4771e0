"""The server is not there, says no, is cut off, or is somebody else's at the moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from crdbexport_postgres.local_server import HOST, LocalServer, local_server

from crdbexport import ConfigError, CrdbExportError, Run, SinkError, SinkRefusedError
from crdbexport.testing import records

pytestmark = pytest.mark.slow
ARun = Callable[..., Run]
COMMIT = b"COMMIT\0"  # Not the `ON COMMIT DROP` of temporary tables.
CUTS = 8


def grants(run: Run, *grantees: str) -> list[tuple[str, pa.RecordBatch]]:
    return [("table_grants", records("table_grants", run=run, grantee=each)) for each in grantees]


@dataclass
class Proxy:
    """Stands between sink and server, and cuts the line: after so many bytes to the server, or around COMMIT."""

    server_port: int
    cut_after: int | None = None
    at_commit: str = ""
    sent: int = 0
    cut: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection((HOST, self.server_port))
                for source, target, pump in ((client, server, self._to_server), (server, client, self._to_client)):
                    threading.Thread(target=pump, args=(source, target), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                self.sent += len(data)
                if COMMIT in data and self.at_commit:
                    self.cut.set()
                    if self.at_commit == "before":
                        break
                if self.cut_after is not None and self.sent > self.cut_after:
                    self.cut.set()
                    break
                server.sendall(data)
        _close(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.cut.is_set():
                    break  # The answer is lost.
                client.sendall(data)
        _close(client, server)


def _close(*ends: socket.socket) -> None:
    for each in ends:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def proxied(target: Any, **cut: Any) -> Iterator[tuple[Proxy, str]]:
    proxy = Proxy(target.server.port, **cut)
    try:
        yield proxy, target.uri.replace(f":{target.server.port}/", f":{proxy.port}/") + "?sslmode=disable"
    finally:
        proxy.listener.close()


@contextmanager
def lock_held(target: Any) -> Iterator[None]:
    """Another run publishes."""
    with closing(dbapi.connect(target.uri)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('crdbexport-postgres'), hashtext('crdbexport'))::text")
        cursor.fetchall()
        yield


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_whose_commit_is_cut_off_is_there_once_after_it_is_delivered_again(
    target: Any, a_run: ARun, outcome: Callable[..., Any], moment: str
) -> None:
    run = a_run()
    with proxied(target, at_commit=moment) as (proxy, uri):
        sink = target.written(run, grants(run, "app", "intern"), uri=uri)
        with pytest.raises(SinkError, match=r"broke in COMMIT.*may be there or not; run the same command again"):
            sink.commit(run, outcome(run))
        sink.abort()
        assert proxy.cut.is_set()
    tables = target.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'crdbexport'")
    assert (tables == [(0,)]) == (moment == "before")
    target.deliver(run, grants(run, "app", "intern"), lock_timeout_seconds=10.0)
    assert target.column("table_grants", "grantee") == ["app", "intern"]


def test_a_line_cut_at_any_moment_leaves_the_earlier_run_or_the_later_one(target: Any, a_run: ARun) -> None:
    first, later = a_run(1), a_run(2)
    target.deliver(first, grants(first, "app", "intern"))
    with proxied(target) as (proxy, uri):
        target.deliver(first, grants(first, "app", "intern"), uri=uri)
        whole = proxy.sent
    for number in range(CUTS):
        with proxied(target, cut_after=whole * number // CUTS) as (proxy, uri):
            with pytest.raises(SinkError):
                target.deliver(later, grants(later, "app"), uri=uri)
            assert proxy.cut.is_set()
        assert target.column("table_grants", "grantee") in (["app"], ["app", "intern"])
    target.deliver(later, grants(later, "app"), lock_timeout_seconds=10.0)
    assert target.query("SELECT grantee, run_id FROM crdbexport.table_grants") == [("app", "run-2")]


def test_a_session_that_is_terminated_fails_the_run_and_leaves_nothing(
    target: Any, a_run: ARun, outcome: Callable[..., Any]
) -> None:
    run = a_run()
    sink = target.written(run, grants(run, "app"), lock_timeout_seconds=30.0)
    failures: list[BaseException] = []

    def commit() -> None:
        try:
            sink.commit(run, outcome(run))
        except CrdbExportError as error:
            failures.append(error)

    with lock_held(target):
        thread = threading.Thread(target=commit)
        thread.start()
        ended: list[Any] = []
        while not ended:
            ended = target.query(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
        thread.join()
    sink.abort()
    [error] = failures
    assert isinstance(error, SinkError)
    assert error.exit_code == 5
    assert "terminating connection due to administrator command" in str(error)
    target.deliver(run, grants(run, "app"))
    assert target.column("table_grants", "grantee") == ["app"]


def test_a_commit_waits_for_another_run_no_longer_than_it_may(target: Any, a_run: ARun) -> None:
    with (
        lock_held(target),
        pytest.raises(SinkError, match=r"lock timeout; another run.*lock_timeout_seconds") as caught,
    ):
        target.deliver(a_run(), grants(a_run(), "app"))
    assert caught.value.exit_code == 5
    with lock_held(target):  # The schema of another run.
        target.deliver(a_run(), grants(a_run(), "app"), schema="elsewhere")


def test_a_preflight_does_not_wait_for_another_run(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(), [])
    with lock_held(target):
        target.sink().preflight(a_run(2))


@pytest.mark.parametrize(
    ("login", "kind", "complaint"),
    [
        ({"password": "wrong-password"}, SinkRefusedError, "authentication failed.*check user and password"),
        ({"password": ""}, SinkRefusedError, "no password supplied.*check user and password"),
        ({"database": "absent"}, ConfigError, '"absent" does not exist; create the database'),
        ({"query": "sslmode=require"}, SinkRefusedError, "SSL was required; check sslmode"),
        ({"query": "options=-c%20default_transaction_read_only%3Don"}, SinkRefusedError, "read only; name one"),
    ],
)
def test_a_server_that_says_no_is_refused_before_the_run(
    target: Any, a_run: ARun, login: dict[str, str], kind: type[CrdbExportError], complaint: str
) -> None:
    uri = target.server.uri(**{"database": target.database} | login)
    with pytest.raises(kind, match=complaint) as caught:
        target.sink(uri=uri).preflight(a_run())
    assert str(caught.value).startswith(f"postgresql://{HOST}:{target.server.port}/")
    assert "wrong-password" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_a_server_that_is_down_is_worth_another_try(a_run: ARun, target: Any) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SinkError, match=r"Connection refused.*see that the server is up") as caught:
        target.sink(uri=f"postgresql://me@{HOST}:{port}/clusters").preflight(a_run())
    assert caught.value.exit_code == 5


def test_a_standby_is_refused_before_the_run(target: Any, a_run: ARun) -> None:
    with local_server(standby=True) as standby, pytest.raises(SinkRefusedError, match="is a standby; name one"):
        target.sink(uri=standby.uri()).preflight(a_run())


@pytest.fixture
def stranger(target: Any) -> Iterator[str]:
    """The URI of a user who was granted nothing."""
    name = f"{target.database}_user"
    target.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of-the-stranger'")
    yield target.server.uri(target.database, user=name, password="of-the-stranger")
    target.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_user_without_privileges_is_told_which_one_is_lacking(target: Any, a_run: ARun, stranger: str) -> None:
    user = f"{target.database}_user"
    database = f'DATABASE "{target.database}"'
    steps = [
        (f"REVOKE TEMPORARY ON {database} FROM public", "TEMPORARY on the database"),
        (f"GRANT TEMPORARY ON {database} TO {user}", 'CREATE on the database, which has no schema "crdbexport" yet'),
        ("CREATE SCHEMA crdbexport", 'USAGE on schema "crdbexport"'),
        (f"GRANT USAGE ON SCHEMA crdbexport TO {user}", 'CREATE on schema "crdbexport"'),
    ]
    for statement, lacking in steps:
        target.execute(statement)
        with pytest.raises(SinkRefusedError, match=f"lacks the privilege {lacking}"):
            target.sink(uri=stranger).preflight(a_run())
    target.execute(f"GRANT CREATE ON SCHEMA crdbexport TO {user}")
    target.deliver(a_run(), grants(a_run(), "app"), uri=stranger)
    target.execute("ALTER TABLE crdbexport.tables OWNER TO postgres")
    with pytest.raises(SinkRefusedError, match=r'"tables": is not the user\'s to change; grant SELECT'):
        target.sink(uri=stranger).preflight(a_run(2))
    target.execute(f"GRANT ALL ON crdbexport.tables TO {user}", "ALTER TABLE crdbexport.tables DROP COLUMN zone_config")
    with pytest.raises(SinkRefusedError, match=r'"tables": lacks columns that only its owner can add'):
        target.sink(uri=stranger).preflight(a_run(2))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("ALTER size_bytes TYPE text", 'column "size_bytes" has the type text and not bigint'),
        ("DROP COLUMN details", 'column "details" is missing'),
        ("ALTER size_bytes SET NOT NULL", 'column "size_bytes" is NOT NULL'),
        (
            "ADD mine integer; UPDATE crdbexport.databases SET mine = 1; "
            "ALTER TABLE crdbexport.databases ALTER mine SET NOT NULL",
            'column "mine" is NOT NULL',
        ),
        ("DROP CONSTRAINT databases_pkey", "has no unique index on record_id"),
        ("RENAME TO other; CREATE VIEW crdbexport.databases AS SELECT 1 AS one", "is no table; rename it"),
    ],
)
def test_a_table_changed_by_hand_is_refused_before_the_run_and_at_commit(
    target: Any, a_run: ARun, outcome: Callable[..., Any], change: str, complaint: str
) -> None:
    target.deliver(a_run(1), [("databases", records("databases", run=a_run(1)))])
    sink = target.written(a_run(2), [])
    target.execute(*f"ALTER TABLE crdbexport.databases {change}".split("; "))
    for attempt in (lambda: sink.commit(a_run(2), outcome(a_run(2))), lambda: target.sink().preflight(a_run(2))):
        with pytest.raises(SinkRefusedError, match=rf'table "crdbexport"."databases": {complaint}'):
            attempt()
    sink.abort()


@pytest.mark.parametrize(
    ("sqlstate", "kind", "advice"),
    [
        ("53100", SinkError, "free space on the server"),
        ("53200", SinkError, "let the server have more of it"),
        ("40001", SinkError, "run the same command again"),
        ("40P01", SinkError, "run the same command again"),
        ("57014", SinkError, "statement_timeout"),
        ("23514", SinkRefusedError, "constraint or trigger"),
        ("42501", SinkRefusedError, "grant that to the user"),
        ("XX000", SinkError, "run the same command again"),
    ],
)
def test_an_error_in_the_merge_is_told_by_its_class_and_leaves_what_was_there(
    target: Any, a_run: ARun, sqlstate: str, kind: type[SinkError], advice: str
) -> None:
    target.deliver(a_run(1), grants(a_run(1), "app"))
    raising = f"BEGIN RAISE EXCEPTION 'it went wrong' USING ERRCODE = '{sqlstate}', DETAIL = 'a row of it'; END"
    target.execute(
        f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $${raising}$$",
        "CREATE TRIGGER t BEFORE INSERT ON crdbexport.table_grants FOR EACH ROW EXECUTE FUNCTION trouble()",
    )
    with pytest.raises(SinkError, match=rf"^postgresql://.*: it went wrong; .*{advice}") as caught:
        target.deliver(a_run(2), grants(a_run(2), "app", "intern"))
    assert type(caught.value) is kind
    assert "a row of it" not in str(caught.value)
    assert target.query("SELECT grantee, run_id FROM crdbexport.table_grants") == [("app", "run-1")]


def test_a_constraint_that_is_checked_at_commit_undoes_the_run(target: Any, a_run: ARun) -> None:
    target.deliver(a_run(1), [])
    target.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'too late'; END$$",
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON crdbexport.table_grants DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION late()",
    )
    with pytest.raises(SinkError, match="too late"):
        target.deliver(a_run(2), grants(a_run(2), "app"))
    assert target.column("table_grants", "grantee") == []


def test_a_statement_timeout_of_the_user_is_told(target: Any, a_run: ARun) -> None:
    uri = f"{target.uri}?options=-c%20statement_timeout%3D150ms"
    with lock_held(target), pytest.raises(SinkError, match="statement timeout; raise the server's statement_timeout"):
        target.deliver(a_run(), grants(a_run(), "app"), uri=uri, lock_timeout_seconds=30.0)


def test_a_database_of_another_encoding_is_refused_before_the_run(
    server: LocalServer, target: Any, a_run: ARun
) -> None:
    name = f"{target.database}_latin"
    target.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(ConfigError, match="encoding LATIN1; name one that has UTF8"):
        target.sink(uri=server.uri(name)).preflight(a_run())
    target.execute(f"DROP DATABASE {name}")


def test_two_records_with_one_id_are_refused(target: Any, a_run: ARun) -> None:
    with pytest.raises(SinkRefusedError, match="two records of the run have the same record_id"):
        target.deliver(a_run(), grants(a_run(), "app", "app"))
