from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.dialects.native_by_id import NativeByIdDialect
from crdbexport.errors import AuthenticationError, CrdbExportError, RedirectRefusedError, UnexpectedServerError
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.faults import Body, Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.world import World

Serve = Callable[[ClusterApp], str]
Detect = Callable[..., Any]

LIST = "/api/v2/databases"


@pytest.fixture
def detect(serve: Serve, in_session: Any) -> Detect:
    """The dialect that is found, and the names of the databases that it lists then."""

    def run(app: ClusterApp, wanted: Any = "auto", **changes: Any) -> tuple[Any, list[str]]:
        async def work(session: Any) -> tuple[Any, list[str]]:
            dialect = await detected(session, wanted)
            return dialect, [each.name for each in await dialect.databases(session)]

        found: tuple[Any, list[str]] = in_session(serve(app), work, **changes)
        return found

    return run


def native(*rules: Rule, generation: Any = "v22", **quirks: Any) -> NativeSandbox:
    return NativeSandbox(World(2, 2), generation=generation, faults=Faults(rules=rules), quirks=Quirks(**quirks))


def asked(app: ClusterApp) -> dict[str, int]:
    """How often each path below the base was asked for, but for health, login and logout."""
    below = {path.removeprefix("/api/v2/"): count for path, count in app.hits.items()}
    return {path: count for path, count in below.items() if path.rstrip("/") not in ("health", "login", "logout")}


def refused(detect: Detect, *arguments: Any, **changes: Any) -> CrdbExportError:
    with pytest.raises(CrdbExportError) as caught:
        detect(*arguments, **changes)
    return caught.value


def test_a_documented_server_is_known_by_its_list_alone(detect: Detect) -> None:
    app = Sandbox(World(2, 2))
    dialect, names = detect(app)
    assert (dialect.name, names) == ("documented", ["movr", "bank", "system"])
    assert asked(app) == {"databases": 1}


def test_an_empty_documented_server_is_documented(detect: Detect) -> None:
    app = Sandbox(World(), faults=Faults(rules=[Rule(LIST, Body(b'{"databases": []}'))]))
    dialect, names = detect(app)
    assert (dialect.name, names, asked(app)) == ("documented", [], {"databases": 1})


@pytest.mark.parametrize(("generation", "by_id"), [("v22", False), ("v25", True)])
def test_a_native_server_is_known_by_its_list_and_what_it_offers(detect: Detect, generation: str, by_id: bool) -> None:
    app = native(generation=generation)
    dialect, names = detect(app)
    assert (dialect.name, isinstance(dialect, NativeByIdDialect)) == ("native", by_id)
    assert names == ["bank", "movr", "system"]
    assert asked(app) == {"databases": 1, "databases/": 1, "database_metadata/": 1}


@pytest.mark.parametrize("slashless", [b'{"databases": ["movr"]}', b"{}"])
def test_a_proxy_that_adds_the_slash_hides_no_native_server(detect: Detect, slashless: bytes) -> None:
    dialect, names = detect(native(Rule(LIST, Body(slashless))))
    assert (dialect.name, names) == ("native", ["bank", "movr", "system"])


def test_a_native_server_may_show_no_database_at_all(detect: Detect) -> None:
    dialect, names = detect(native(hidden_databases=["bank", "movr", "system"]))
    assert (dialect.name, names) == ("native", [])


@pytest.mark.parametrize("answer", [b'{"status": "ok"}', b'{"databases": {}}', b'{"databases": [["movr"]]}', b"[]"])
def test_json_of_another_product_is_no_list(detect: Detect, answer: bytes) -> None:
    error = refused(detect, native(Rule(f"{LIST}/?", Body(answer))))
    assert isinstance(error, UnexpectedServerError)
    assert "check --url" in str(error)


def test_the_html_of_a_proxy_is_no_list(detect: Detect) -> None:
    error = refused(detect, native(Rule(f"{LIST}/?", Body(b"<html>Sign in", "text/html"))))
    assert isinstance(error, UnexpectedServerError)
    assert str(error).startswith("GET databases answered HTML, not JSON")


@pytest.mark.parametrize("wanted", ["auto", "native"])
def test_a_server_that_is_too_old_is_told_from_a_failing_one(detect: Detect, wanted: str) -> None:
    error = refused(detect, native(too_old=True), wanted, no_login=True)
    assert isinstance(error, UnexpectedServerError)
    assert "GET databases/ answered 404; the server has no list of databases: it is too old (v21.1)" in str(error)
    assert "wrong base path" in str(error)


@pytest.mark.parametrize("login", [{}, {"no_login": True}])
def test_a_virtual_cluster_is_told_as_such(detect: Detect, login: dict[str, Any]) -> None:
    error = refused(detect, native(tenant=True), **login)
    assert isinstance(error, UnexpectedServerError)
    assert "answered 501: this is a virtual cluster, which does not offer these endpoints" in str(error)


def test_a_failing_list_is_worth_another_try(detect: Detect) -> None:
    error = refused(detect, native(Rule(f"{LIST}/", Status(500))))
    assert (error.exit_code, "run it again later" in str(error)) == (5, True)


@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_the_documented_form_forced_on_a_native_server_fails_at_the_first_list(detect: Detect, generation: str) -> None:
    app = native(generation=generation)
    error = refused(detect, app, "documented")
    assert isinstance(error, UnexpectedServerError)
    assert "the server answers in the native form; leave --dialect out" in str(error)
    assert asked(app) == {"databases": 1}


def test_the_documented_form_forced_on_a_list_of_names_fails_at_once(detect: Detect) -> None:
    app = native(Rule(LIST, Body(b'{"databases": ["movr"]}')))
    error = refused(detect, app, "documented")
    assert "a list of names, not of objects; the server answers in the native form" in str(error)
    assert asked(app) == {"databases": 1}


def test_the_native_form_forced_on_a_documented_server_fails_at_the_first_list(detect: Detect) -> None:
    app = Sandbox(World(2, 2))
    error = refused(detect, app, "native")
    assert isinstance(error, UnexpectedServerError)
    assert "the server answers in the documented form; leave --dialect out" in str(error)
    assert asked(app) == {"databases/": 1}


@pytest.mark.parametrize(("wanted", "app"), [("documented", Sandbox(World(2, 2))), ("native", native())])
def test_the_right_dialect_may_be_forced(detect: Detect, wanted: str, app: ClusterApp) -> None:
    dialect, names = detect(app, wanted)
    assert (dialect.name, sorted(names)) == (wanted, ["bank", "movr", "system"])
    assert "databases/" not in asked(app) or "databases" not in asked(app)


def test_metadata_that_cannot_be_read_leave_the_way_by_name(detect: Detect, caplog: pytest.LogCaptureFixture) -> None:
    dialect, _ = detect(native(Rule("/api/v2/database_metadata/", Status(500)), generation="v25"))
    assert (dialect.name, isinstance(dialect, NativeByIdDialect)) == ("native", False)
    assert "sizes and counts are read table by table" in caplog.text


@pytest.mark.parametrize(
    ("quirks", "told"),
    [
        ({}, None),
        ({"stats_age_seconds": 3600.0}, None),
        ({"stats_age_seconds": 3 * 86400.0}, "sizes and counts are up to 3 days old"),
        ({"cold_cache": True}, "the cluster has never measured its tables"),
    ],
)
def test_old_measures_are_warned_about(
    detect: Detect, caplog: pytest.LogCaptureFixture, quirks: dict[str, Any], told: str | None
) -> None:
    detect(native(generation="v25", **quirks))
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [told in each for each in warnings] == [True] if told else warnings == []


def test_plain_http_to_a_secure_cluster_is_refused_before_the_password_leaves(detect: Detect) -> None:
    app = native(https_only=True)
    error = refused(detect, app)
    assert isinstance(error, RedirectRefusedError)
    assert "a redirect to https://127.0.0.1" in str(error)
    assert sum(count for path, count in app.hits.items() if "login" in path) == 0


def test_an_insecure_cluster_is_read_without_a_login(detect: Detect) -> None:
    app = native(insecure=True)
    assert detect(app, no_login=True)[0].name == "native"
    error = refused(detect, app)
    assert isinstance(error, AuthenticationError)
    assert "a cluster without authentication takes --no-login" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("app", [Sandbox(World(1, 2)), native(), native(generation="v25")])
def test_the_report_and_the_check_tell_the_dialect(
    app: ClusterApp, serve: Serve, export: Callable[..., Any], run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    url, name = serve(app), "documented" if isinstance(app, Sandbox) else "native"
    assert export(url).dialect == name
    ran = run_cli("check", "--url", url, "--cluster", "c1", "--username", "demo")
    assert f"dialect {name}" in ran.out


def test_a_run_that_ends_before_the_dialect_is_known_tells_none(serve: Serve, export: Callable[..., Any]) -> None:
    report = export(serve(native(tenant=True)))
    assert (report.dialect, report.exit_code) == (None, 4)
    assert json.loads(report.to_json())["dialect"] is None
