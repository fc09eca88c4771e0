"""`crdbexport check`: would an export work; it exports nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.native import NativeSandbox, Quirks
from crdbexport.sandbox.world import World

Run = Callable[..., Any]
HEADER = "-- what the account needs there, to be granted by a member of admin; tried on no live server\n"


@pytest.fixture
def checked(run_cli: Run, serve: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Checks a native server of this generation, with an account that has these quirks."""
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")

    def check(generation: Any, *options: str, world: World | None = None, **quirks: Any) -> Any:
        app = NativeSandbox(world or World(2, 3), generation=generation, quirks=Quirks(**quirks))
        return run_cli("check", "--url", serve(app), "--cluster", "c1", "--username", "demo", *options)

    return check


def test_a_check_tells_what_an_export_would_meet(run_cli: Run, cluster: list[str], app: Sandbox) -> None:
    ran = run_cli("check", *cluster)
    assert (ran.exit_code, ran.err) == (0, "")
    assert f"cluster c1 at {cluster[1]}: reached, logged in, dialect documented" in ran.out
    assert "sees 2 databases with 8 tables" in ran.out
    assert "gaps" not in ran.out
    assert (app.logins, app.logouts) == (1, 1)


@pytest.mark.slow
def test_a_check_foretells_the_number_of_requests(run_cli: Run, cluster: list[str], app: Sandbox) -> None:
    told = run_cli("check", *cluster).out
    asked = app.hits.total()
    assert run_cli("export", *cluster, "--sink", "jsonl:-").exit_code == 0
    assert f"about {app.hits.total() - asked} requests" in told
    assert app.hits.total() - asked > asked


def test_a_check_writes_nothing(run_cli: Run, cluster: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    ran = run_cli("check", *cluster, "--sink", f"lake=parquet:{tmp_path / 'lake'}", "--sink", "jsonl:-")
    assert ran.exit_code == 0
    assert ran.out.startswith("sink lake: ready\nsink jsonl: ready\ncluster c1 at ")
    # What a sink needs to try its target out stays in its staging directory.
    new = {path.relative_to(tmp_path).parts[:2] for path in set(tmp_path.rglob("*")) - before}
    assert new <= {("lake",), ("lake", "_staging")}


def test_a_sink_that_cannot_work_is_refused_before_the_first_request(
    run_cli: Run, cluster: list[str], app: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    ran = run_cli("check", *cluster, "--sink", f"parquet:{tmp_path}/file/lake")
    assert ran.exit_code == 2
    assert "sink parquet: " in ran.err
    assert app.hits.total() == 0


def test_gaps_are_told_and_give_their_exit_code(
    run_cli: Run, serve: Callable[[Sandbox], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    rules = [Rule("/api/v2/databases/bank/grants", Status(403))]
    url = serve(Sandbox(World(2, 2), faults=Faults(rules=rules)))
    ran = run_cli("check", "--url", url, "--cluster", "c1", "--username", "demo")
    assert (ran.exit_code, ran.err) == (3, "")
    assert '1 gaps: forbidden\n  forbidden: grants of "bank"\n' in ran.out
    assert rules[0].fired == 1


def test_a_wrong_password_gives_the_exit_code_of_export(
    run_cli: Run, cluster: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "s3cret-canary")
    ran = run_cli("check", *cluster)
    assert (ran.exit_code, ran.out) == (4, "")
    assert ran.err.startswith('error: login refused for user "demo"')
    assert ran.err.count("\n") == 1
    assert "s3cret-canary" not in ran.err


def test_a_check_needs_no_cluster_to_be_tried_out(run_cli: Run) -> None:
    ran = run_cli("check", "--sandbox")
    assert (ran.exit_code, ran.err) == (0, "")
    assert "cluster sandbox at http://127.0.0.1:" in ran.out


@pytest.mark.slow
def test_what_could_be_read_is_told_part_by_part(run_cli: Run, cluster: list[str], checked: Run) -> None:
    parts = (
        "lists of tables: 2 of 2 read\ngrants of databases: 2 of 2 read\ndetails of one table a database: 2 of 2 read\n"
    )
    documented, by_name, by_id = run_cli("check", *cluster).out, checked("v22").out, checked("v25").out
    assert documented.endswith(parts)
    assert by_name.endswith(f"{parts}metadata endpoints: missing, as before v24.3\n")
    assert by_id.endswith(f"{parts}metadata endpoints: answered, for 2 of 2 databases\n")


def test_parts_that_no_stream_needs_are_not_told(checked: Run) -> None:
    told = checked("v22", "--stream", "database_grants").out
    assert "grants of databases: 2 of 2 read" in told
    assert "tables:" not in told
    assert "details of" not in told


def test_details_that_are_refused_are_told_with_the_grants_they_take(checked: Run) -> None:
    ran = checked("v22", without_zoneconfig=True, world=World(1, 2))
    assert ran.exit_code == 3
    assert "details of one table a database: 0 of 1 read\n" in ran.out
    assert "lacks SELECT and ZONECONFIG on the table (before v22.2: any privilege on it); but views, and " in ran.out
    statements = ran.out.split(HEADER)[1]
    assert 'GRANT SELECT, ZONECONFIG ON TABLE "movr".public.* TO "demo";\n' in statements
    assert ran.out.count('details of "movr"') == 1


def test_a_view_that_is_known_as_one_speaks_for_no_missing_privilege(checked: Run) -> None:
    ran = checked("v25", world=World(1, 0, views=1))
    assert "1 gaps: view\n" in ran.out
    assert "lacks" not in ran.out
    assert HEADER not in ran.out


def test_a_database_that_the_metadata_leave_out_is_named(checked: Run) -> None:
    ran = checked("v25", "--stream", "databases", without_connect=["bank"])
    assert ran.exit_code == 0
    assert "metadata endpoints: answered, for 1 of 2 databases\n" in ran.out
    assert 'not in the metadata: "bank": CONNECT must be granted to the account itself, or to public' in ran.out
    assert ran.out.split(HEADER)[1].splitlines()[1:] == ['GRANT CONNECT ON DATABASE "bank" TO "demo";']


def test_metadata_that_fail_are_told_from_metadata_that_are_missing(
    run_cli: Run, serve: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    rules = [Rule("/api/v2/database_metadata/", Status(403))]
    url = serve(NativeSandbox(World(2, 3), faults=Faults(rules=rules)))
    ran = run_cli("check", "--url", url, "--cluster", "c1", "--username", "demo")
    assert "metadata endpoints: failed (forbidden)\n" in ran.out


@pytest.mark.parametrize("generation", ["v22", "v25"])
def test_a_database_that_shows_nothing_is_suspicious(checked: Run, generation: str) -> None:
    world = World(2, 3)
    hidden = [f"bank.{each.schema_name}.{each.name}" for each in world.tables("bank")]
    ran = checked(generation, world=world, hidden_tables=hidden)
    assert ran.exit_code == 0
    assert 'no table seen in "bank": empty, or the account lacks CONNECT on the database\n' in ran.out
    assert 'GRANT CONNECT ON DATABASE "bank" TO "demo";\n' in ran.out.split(HEADER)[1]


def test_an_account_that_sees_no_database_is_told_what_it_takes(checked: Run) -> None:
    ran = checked("v22", hidden_databases=World(2, 3).database_names())
    assert ran.exit_code == 0
    assert "sees 0 databases with 0 tables\n" in ran.out
    assert "no database seen: the account most likely lacks CONNECT on the database\n" in ran.out
    assert 'GRANT CONNECT ON DATABASE "your_database" TO "demo";\n' in ran.out.split(HEADER)[1]


def test_an_account_of_the_documented_form_lacks_admin(run_cli: Run, serve: Callable[[Any], str]) -> None:
    rules = [Rule("/api/v2/databases/bank/grants", Status(403))]
    url = serve(Sandbox(World(2, 2), faults=Faults(rules=rules), require_login=False))
    ran = run_cli("check", "--url", url, "--cluster", "c1", "--no-login")
    assert "refused, see the gaps: the account most likely lacks membership of admin\n" in ran.out
    assert ran.out.split(HEADER)[1].splitlines()[1:] == ['GRANT admin TO "exporter";']


@pytest.mark.slow
def test_grants_are_shown_to_whoever_asks_for_more(checked: Run) -> None:
    assert HEADER not in checked("v25").out
    statements = checked("v25", "-v").out.split(HEADER)[1]
    assert [line for line in statements.splitlines() if "CONNECT ON" in line] == [
        f'GRANT CONNECT ON DATABASE "{name}" TO "demo";' for name in ("bank", "movr")
    ]
