"""Delivering from what a run keeps: to sinks that lack it, and what a sink had refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from crdbexport import Batch, ConfigError, ExportConfig, Outcome, RecordRefusedError, Run, RunReport, Sink, SinkError
from crdbexport.errors import PreflightError, RunHeldError, StoppedError
from crdbexport.pipeline.dead_letters import DeadLetters
from crdbexport.pipeline.state import RunState
from crdbexport.redelivery import redeliver
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World
from crdbexport.supervision import Stop
from tests.conftest import assert_adds_up
from tests.sinks.webhook_receiver import SECRET, Receiver, receiving

Export = Callable[..., RunReport]
pytestmark = pytest.mark.slow

MINE = {"mine": {"type": "picky"}}
BOTH = {"mine": {"type": "picky"}, "other": {"type": "other"}}


class Killed(BaseException):
    """In the place of a signal that nobody can catch."""


def picky() -> Any:
    """A fresh sink class that refuses what tells of the tables `refuses`, one record at a time."""

    class Picky(Sink):
        refuses: ClassVar[set[str]] = {"users"}
        reason: ClassVar[str] = "too long"
        down: ClassVar[bool] = False
        unready: ClassVar[bool] = False
        taken: ClassVar[list[dict[str, Any]]] = []
        runs: ClassVar[list[Run]] = []
        outcomes: ClassVar[list[Outcome]] = []
        committing: ClassVar[list[Callable[[], None]]] = []

        def preflight(self, run: Run) -> None:
            self.runs.append(run)
            if self.unready:
                raise ConfigError("not configured")

        def open(self) -> None:
            self.batch: list[dict[str, Any]] = []

        def write(self, batch: Batch) -> None:
            if refused := [row["record_id"] for row in batch.rows() if row.get("table_name") in self.refuses]:
                raise RecordRefusedError(refused[:1], self.reason)
            if self.down and self.batch:
                raise SinkError("the target is down")
            self.batch += batch.rows()

        def commit(self, outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            self.taken.extend(self.batch)
            for each in self.committing:
                each()

    return Picky


@pytest.fixture
def mine() -> Any:
    return picky()


@pytest.fixture
def other() -> Any:
    return picky()


@pytest.fixture
def call(offering: Any, mine: Any, other: Any, telling: Any) -> dict[str, Any]:
    called: dict[str, Any] = offering(picky=mine, other=other, fine=telling)
    return called


@pytest.fixture
def deliver(settings: dict[str, Any], call: dict[str, Any]) -> Callable[..., RunReport]:
    """Redelivers run r1 with nothing but sinks and the state directory, and checks that the report adds up."""

    def run(sinks: dict[str, Any], *, letters: bool = True, stop: Stop | None = None, **changes: Any) -> RunReport:
        config = ExportConfig(sinks=sinks, state_dir=settings["state_dir"], **changes)
        report = redeliver(config, "r1", dead_letters=letters, stop=stop, **call)
        assert_adds_up(report)
        return report

    return run


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs" / "c1.r1"


def letters_of(run_directory: Path, sink: str = "mine") -> list[tuple[str, str]]:
    path = run_directory / "dead_letters" / f"{sink}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(each["stream"], each["reason"]) for each in map(json.loads, lines)]


def sums(report: RunReport, sink: int = 0) -> tuple[int, int]:
    counts = report.sinks[sink].streams.values()
    return sum(each.delivered for each in counts), sum(each.dead_lettered for each in counts)


def test_what_was_refused_is_taken_once_the_sink_is_mended(
    export: Export, url: str, app: Sandbox, call: Any, mine: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=MINE, call=call)
    assert first.exit_code == 3
    refused = len(letters_of(run_directory))
    assert sums(first) == (sum(each.extracted for each in first.streams.values()) - refused, refused)
    before, asked = list(mine.taken), app.hits.total()
    mine.refuses.clear()

    report = deliver(MINE)

    again = mine.taken[len(before) :]
    assert refused == len(again) > 3
    assert {row["table_name"] for row in again} == {"users"}
    assert not {row["record_id"] for row in again} & {row["record_id"] for row in before}
    assert (report.status, report.exit_code, report.error) == ("complete", 0, None)
    assert sums(report) == (len(before) + refused, 0)
    assert (report.streams, report.requests, report.started_at) == (first.streams, first.requests, first.started_at)
    assert app.hits.total() == asked
    assert sorted(path.name for path in run_directory.rglob("*") if path.is_file()) == ["journal.db", "lock"]
    assert export(url, sinks=MINE, call=call) == report


def test_a_sink_knows_a_redelivery_and_that_it_says_nothing_of_what_is_gone(
    export: Export, url: str, call: Any, mine: Any, deliver: Any
) -> None:
    first = export(url, sinks=MINE, call=call)
    mine.refuses.clear()
    deliver(MINE)

    assert [run.redelivery for run in mine.runs] == [False, True]
    then, now = mine.runs
    assert (then.cluster, then.run_id, then.extracted_at) == (now.cluster, now.run_id, now.extracted_at)
    assert dict(then.streams) == dict(now.streams)
    complete, again = mine.outcomes
    assert complete.coverage["tables"].covers("movr", "public", "users")
    assert not any(coverage.covers("movr", "public", "users") for coverage in again.coverage.values())
    assert sum(again.rows.values()) == sums(first)[1]


def test_what_is_refused_again_stays_with_its_new_reason(
    export: Export, url: str, call: Any, mine: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=MINE, call=call)
    before = letters_of(run_directory)
    mine.reason = "still too long"

    report = deliver(MINE)

    assert letters_of(run_directory) == [(stream, "still too long") for stream, _ in before]
    assert (report.exit_code, sums(report)) == (3, sums(first))
    assert report.error == first.error
    assert (run_directory / "spool").exists()


def test_some_may_be_taken_and_others_be_refused_again(
    export: Export, url: str, call: Any, mine: Any, deliver: Any, run_directory: Path
) -> None:
    mine.refuses |= {"vehicles"}
    first = export(url, sinks=MINE, call=call)
    mine.refuses -= {"users"}

    report = deliver(MINE)

    left = len(letters_of(run_directory))
    assert 0 < left < sums(first)[1]
    assert sums(report) == (sum(sums(first)) - left, left)
    mine.refuses.clear()
    assert deliver(MINE).exit_code == 0
    assert len({row["record_id"] for row in mine.taken}) == len(mine.taken) == sum(sums(first))


def test_a_sink_that_fails_half_way_changes_nothing(
    export: Export, url: str, call: Any, mine: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=MINE, call=call)
    before, taken = letters_of(run_directory), list(mine.taken)
    mine.refuses.clear()
    mine.down = True

    report = deliver(MINE)

    assert (report.status, report.exit_code) == ("incomplete", 3)
    assert (report.error or "").startswith("sink mine failed: the target is down; ")
    assert (sums(report), letters_of(run_directory), mine.taken) == (sums(first), before, taken)
    assert not list(run_directory.glob("refused*")) + list(run_directory.glob("dead_letters/*.again"))
    mine.down = False
    assert deliver(MINE).exit_code == 0


@pytest.mark.parametrize(
    "dies_in", [(DeadLetters, "become"), (RunState, "keep_report")], ids=["before the letters go", "before the report"]
)
def test_a_process_that_dies_after_the_commit_leaves_sums_that_come_out_right(
    export: Export,
    url: str,
    call: Any,
    mine: Any,
    deliver: Any,
    monkeypatch: pytest.MonkeyPatch,
    dies_in: tuple[Any, str],
) -> None:
    mine.refuses |= {"vehicles"}
    first = export(url, sinks=MINE, call=call)
    mine.refuses -= {"users"}

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*dies_in, die)
        deliver(MINE)

    told = export(url, sinks=MINE, call=call)
    assert told.exit_code == 3
    assert sum(sums(told)) == sum(sums(first))
    again = deliver(MINE)
    assert sum(sums(again)) == sum(sums(first))
    assert 0 < sums(again)[1] < sums(first)[1]
    mine.refuses.clear()
    report = deliver(MINE)
    assert (report.exit_code, sums(report)) == (0, (sum(sums(first)), 0))
    assert {row["record_id"] for row in mine.taken} >= {row["record_id"] for row in mine.taken[: sums(first)[0]]}


def test_of_several_sinks_each_is_settled_by_itself(
    export: Export, url: str, call: Any, mine: Any, other: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=BOTH, call=call)
    mine.refuses.clear()
    other.refuses.clear()
    other.down = True

    report = deliver(BOTH)

    assert (report.exit_code, sums(report, 0), sums(report, 1)) == (3, (sum(sums(first)), 0), sums(first))
    assert letters_of(run_directory) == []
    with pytest.raises(ConfigError, match="sink mine has no dead letters"):
        deliver(BOTH)
    other.down = False
    assert deliver({"other": BOTH["other"]}).exit_code == 0


def test_a_sink_that_is_not_ready_keeps_all_from_beginning(
    export: Export, url: str, call: Any, mine: Any, other: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=BOTH, call=call)
    mine.refuses.clear()
    other.unready = True
    taken = list(mine.taken)

    with pytest.raises(PreflightError, match="sink other: not configured"):
        deliver(BOTH)

    assert (mine.taken, len(letters_of(run_directory))) == (taken, sums(first)[1])
    assert not (run_directory / "refused").exists()
    assert export(url, sinks=BOTH, call=call) == first


def test_a_stop_keeps_what_is_settled(
    export: Export, url: str, call: Any, mine: Any, other: Any, deliver: Any, run_directory: Path
) -> None:
    first = export(url, sinks=BOTH, call=call)
    stop = Stop()

    mine.refuses.clear()
    other.refuses.clear()
    mine.committing.append(lambda: stop.request(15))

    with pytest.raises(StoppedError):
        deliver(BOTH, stop=stop)

    assert letters_of(run_directory) == []
    assert len(letters_of(run_directory, "other")) == sums(first, 1)[1]
    told = export(url, sinks=BOTH, call=call)
    assert (sums(told, 0), sums(told, 1)) == ((sum(sums(first)), 0), sums(first, 1))


@pytest.mark.parametrize(
    ("sinks", "told"),
    [
        ({"mine": {"type": "picky", "target": "elsewhere"}}, None),
        ({"mine": {"type": "other"}}, "sink mine (other:) has no part in run"),
        ({"late": {"type": "picky"}}, "sink late (picky:) has no part in run"),
        ({"fine": {"type": "fine"}}, "sink fine has no dead letters of run"),
    ],
)
def test_letters_go_to_the_sink_that_had_refused_them_alone(
    export: Export, url: str, call: Any, deliver: Any, sinks: dict[str, Any], told: str | None
) -> None:
    export(url, sinks={**MINE, "fine": {"type": "fine"}}, call=call)
    with pytest.raises(ConfigError, match=told.replace("(", r"\(").replace(")", r"\)") if told else None):
        deliver(sinks)


def test_a_run_without_a_report_has_refused_nothing_yet(
    export: Export, url: str, call: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunState, "keep_report", die)
        export(url, sinks=MINE, call=call)
    with pytest.raises(ConfigError, match="has not been delivered yet"):
        deliver(MINE)


def test_a_sink_that_had_failed_is_fed_without_the_cluster(
    export: Export, url: str, app: Sandbox, call: Any, mine: Any, deliver: Any, run_directory: Path
) -> None:
    mine.refuses.clear()
    mine.down = True
    assert export(url, sinks={**MINE, "fine": {"type": "fine"}}, stream=("tables", "columns"), call=call).exit_code == 3
    asked = app.hits.total()
    mine.down = False

    report = deliver(MINE, letters=False)

    assert (report.exit_code, app.hits.total()) == (0, asked)
    assert [sink.status for sink in report.sinks] == ["committed", "committed"]
    assert {row["table_name"] for row in mine.taken} == {"users", "vehicles"}
    assert set(report.streams) == {"tables", "columns"}
    assert not (run_directory / "spool").exists()


@pytest.mark.parametrize("gap", [False, True], ids=["complete", "with a gap"])
def test_a_sink_to_come_is_fed_from_a_spool_that_was_kept_for_it(
    export: Export,
    serve: Callable[[Sandbox], str],
    call: Any,
    mine: Any,
    deliver: Any,
    run_directory: Path,
    gap: bool,
) -> None:
    rules = [Rule("/api/v2/databases/movr/grants", Status(403))] if gap else []
    app = Sandbox(World(databases=1, tables=2), faults=Faults(rules=rules))
    first = export(serve(app), sinks={"fine": {"type": "fine"}}, keep_spool=True, call=call)
    asked = app.hits.total()
    mine.refuses.clear()

    report = deliver({"late": {"type": "picky"}}, letters=False)

    assert report.exit_code == first.exit_code == (3 if gap else 0)
    assert [(sink.name, sink.status) for sink in report.sinks] == [("fine", "committed"), ("late", "committed")]
    assert len(mine.taken) == sum(each.extracted for each in first.streams.values())
    assert app.hits.total() == asked
    assert (run_directory / "spool").exists()
    assert deliver({"later": {"type": "picky"}}, letters=False).sinks[-1].name == "later"


def test_a_run_that_keeps_nothing_says_what_would_help(export: Export, url: str, call: Any, deliver: Any) -> None:
    export(url, sinks={"fine": {"type": "fine"}}, call=call)
    with pytest.raises(ConfigError, match='run "r1" is delivered and keeps no records; export with --keep-spool'):
        deliver({"late": {"type": "picky"}}, letters=False)


def test_a_run_that_is_not_read_to_its_end_goes_on_with_export(
    export: Export, serve: Callable[[Sandbox], str], call: Any, deliver: Any
) -> None:
    rules = [Rule("/api/v2/databases/movr/tables/users", Status(302))]
    url = serve(Sandbox(World(databases=1, tables=2), faults=Faults(rules=rules)))
    assert export(url, sinks=MINE, call=call).exit_code == 4
    with pytest.raises(ConfigError, match="not read to its end; the same `crdbexport export` command with --run-id r1"):
        deliver(MINE, letters=False)


def test_a_run_that_is_not_known_or_at_work_is_refused(
    export: Export, url: str, call: Any, deliver: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match='no run "r1" is known'):
        deliver(MINE)
    export(url, sinks=MINE, call=call)
    with closing(RunState(tmp_path / "state", "c1", "r1")), pytest.raises(RunHeldError):
        deliver(MINE)
    export(url, sinks=MINE, cluster="c2", call=call)
    with pytest.raises(ConfigError, match="give --cluster"):
        deliver(MINE)
    assert deliver(MINE, cluster="c2").cluster == "c2"


def test_another_day_is_nothing_to_warn_of_where_nothing_is_read(
    export: Export, url: str, call: Any, mine: Any, deliver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    export(url, sinks=MINE, logical_time="2020-01-01", call=call)
    assert "is not today" in caplog.text
    caplog.clear()
    mine.refuses.clear()

    assert deliver(MINE).logical_time.year == 2020
    assert "is not today" not in caplog.text


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", SECRET)
    with receiving(Receiver()) as taken:
        yield taken


def test_a_receiver_that_had_refused_a_message_gets_it_again_and_is_told_of_the_end_once_more(
    export: Export, url: str, receiver: Receiver, deliver: Any
) -> None:
    sinks = {"hook": {"type": "webhook", "target": receiver.url}}
    receiver.answers = [(413, {}), (204, {}), (422, {})]
    first = export(url, sinks=sinks)
    refused = sums(first)[1]
    assert (first.exit_code, refused > 1) == (3, True)
    before = len(receiver.messages)

    report = deliver(sinks)

    again = receiver.messages[before:]
    assert sum(len(each["data"]["records"]) for each in again if each["type"] == "records.batch") == refused
    assert (report.exit_code, sums(report)) == (0, (sum(sums(first)), 0))
    completed, once_more = receiver.of("run.completed")
    assert ("redelivery" in completed, once_more["redelivery"]) == (False, True)
    assert sum(each["records"] for each in once_more["streams"].values()) == refused
    bodies: dict[str, set[bytes]] = {}
    for message_id, body in zip(receiver.ids, receiver.bodies, strict=True):
        bodies.setdefault(message_id, set()).add(body)
    assert {len(each) for each in bodies.values()} == {1}, "one id, one body: receivers drop what they have seen"


def test_a_redelivery_that_fails_does_not_take_the_run_back_from_the_receiver(
    export: Export, url: str, receiver: Receiver, deliver: Any
) -> None:
    sinks = {"hook": {"type": "webhook", "target": receiver.url}}
    receiver.answers = [(422, {}), (204, {}), (422, {})]
    first = export(url, sinks=sinks)
    receiver.answers = [(204, {}), (410, {})]

    report = deliver(sinks)

    assert (report.exit_code, sums(report)) == (3, sums(first))
    assert receiver.of("run.aborted") == []
    assert deliver(sinks).exit_code == 0


@pytest.mark.slow
def test_a_database_that_keeps_state_gains_what_it_had_refused_and_loses_nothing(
    export: Export, url: str, offering: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    from crdbexport_duckdb import DuckDBSink

    class PickyDuckDB(DuckDBSink):
        refuses: ClassVar[bool] = True

        def write(self, batch: Batch) -> None:
            refused = [row["record_id"] for row in batch.rows() if row.get("table_name") == "users"]
            if self.refuses and refused:
                raise RecordRefusedError(refused, "no users")
            super().write(batch)

    file = tmp_path / "cluster.duckdb"
    sinks, call = {"db": {"type": "pickydb", "target": str(file)}}, offering(pickydb=PickyDuckDB)
    first = export(url, sinks=sinks, call=call)
    assert first.exit_code == 3

    def tables() -> list[tuple[str]]:
        with closing(duckdb.connect(str(file), read_only=True)) as database:
            return database.execute("SELECT table_name FROM tables ORDER BY ALL").fetchall()

    assert tables() == [("vehicles",)]
    PickyDuckDB.refuses = False

    config = ExportConfig(sinks=sinks, state_dir=settings["state_dir"])
    report = redeliver(config, "r1", dead_letters=True, **call)

    assert report.exit_code == 0
    assert tables() == [("users",), ("vehicles",)]
    with closing(duckdb.connect(str(file), read_only=True)) as database:
        held = sum(database.execute(f"SELECT count(*) FROM {stream}").fetchall()[0][0] for stream in first.streams)
    assert held == sum(each.extracted for each in first.streams.values())
