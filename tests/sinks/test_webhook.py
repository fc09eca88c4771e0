"""The webhook sink against a real receiver that verifies every signature with the reference library."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crdbexport import Batch, Gap, Outcome, RecordRefusedError, Run, RunReport, SinkError, SinkRefusedError
from crdbexport.errors import ConfigError
from crdbexport.pipeline.batches import Batcher, Envelope
from crdbexport.records import STREAMS, schemas
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World
from crdbexport.sinks.webhook import WebhookSink
from tests.sinks.webhook_receiver import SECRET, Receiver, receiving

NOON = datetime(2026, 1, 31, 12, 0, 0, 5, UTC)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", SECRET)
    with receiving(Receiver()) as taken:
        yield taken


def run_value() -> Run:
    return Run("c1", "r1", NOON, NOON, "hook", schemas(STREAMS))


def grants_batch(count: int, sequence: int = 0, at: datetime = NOON) -> Batch:
    batcher = Batcher(Envelope("c1", "r1", NOON, at))
    assert not list(batcher.add("database_grants", [("db", f"user{n:04}", "CONNECT") for n in range(count)]))
    ((stream, data),) = batcher.finish()
    return Batch(stream, sequence, data)


def made(receiver: Receiver, waits: list[float] | None = None, **options: Any) -> WebhookSink:
    async def sleep(seconds: float) -> None:
        (waits if waits is not None else []).append(seconds)

    sink = WebhookSink(WebhookSink.Config(url=receiver.url, **options), sleep=sleep)
    sink.open(run_value())
    return sink


def outcome(**changes: Any) -> Outcome:
    return Outcome(**{"complete": True, "gaps": (), "coverage": {}, "rows": {"database_grants": 5}, **changes})


def test_sends_signed_batches_then_run_completed(receiver: Receiver) -> None:
    sink = made(receiver)
    sink.write(grants_batch(5), run_value())
    receipt = sink.commit(run_value(), outcome(gaps=(Gap("db", "grants", "forbidden"),), complete=False))
    (records,) = receiver.of("records.batch")
    assert records["stream"] == "database_grants"
    assert [each["grantee"] for each in records["records"]] == [f"user{n:04}" for n in range(5)]
    assert list(records["records"][0]) == STREAMS["database_grants"].schema.names
    (completed,) = receiver.of("run.completed")
    assert completed["streams"]["database_grants"] == {"records": 5, "messages": 1}
    assert completed["complete"] is False
    assert completed["gaps"] == {"forbidden": 1}
    assert receiver.messages[0]["timestamp"] == "2026-01-31T12:00:00.000005Z"
    assert receipt.size_bytes == sum(map(len, receiver.bodies))


def test_messages_are_bounded_in_records_and_bytes(receiver: Receiver) -> None:
    sink = made(receiver, max_records=10)
    sink.write(grants_batch(25), run_value())
    assert [len(each["records"]) for each in receiver.of("records.batch")] == [10, 10, 5]
    small = made(receiver, max_bytes=1024)
    small.write(grants_batch(25, 1), run_value())
    later = receiver.of("records.batch")[3:]
    assert len(later) > 5
    assert sum(len(each["records"]) for each in later) == 25
    sink.abort(run_value(), SinkError("over"))
    small.abort(run_value(), SinkError("over"))


def test_the_same_batch_has_the_same_ids_and_bodies_in_every_attempt(receiver: Receiver) -> None:
    for _ in range(2):
        sink = made(receiver, max_records=10)
        sink.write(grants_batch(25), run_value())
        sink.commit(run_value(), outcome())
    half = len(receiver.ids) // 2
    assert receiver.ids[:half] == receiver.ids[half:]
    assert receiver.bodies[:half] == receiver.bodies[half:]
    assert len(set(receiver.ids)) == half == 4


def test_server_errors_are_tried_again_with_the_same_id(receiver: Receiver) -> None:
    receiver.answers = [(503, {}), (500, {}), (408, {})]
    waits: list[float] = []
    sink = made(receiver, waits)
    sink.write(grants_batch(1), run_value())
    sink.abort(run_value(), SinkError("over"))
    assert len(waits) == 3
    assert len(set(receiver.ids[:4])) == 1


def test_retry_after_is_honoured(receiver: Receiver) -> None:
    receiver.answers = [(429, {"Retry-After": "7"})]
    waits: list[float] = []
    sink = made(receiver, waits)
    sink.write(grants_batch(1), run_value())
    sink.abort(run_value(), SinkError("over"))
    assert 7 <= waits[0] < 8


def test_a_receiver_that_stays_down_fails_the_sink_after_five_attempts(receiver: Receiver) -> None:
    receiver.answers = [(503, {})] * 9
    sink = made(receiver)
    with pytest.raises(SinkError, match="answered 503") as caught:
        sink.write(grants_batch(1), run_value())
    assert not isinstance(caught.value, SinkRefusedError)
    assert len(receiver.ids) == 5
    sink.abort(run_value(), caught.value)


@pytest.mark.parametrize(("status", "said"), [(301, "redirect"), (410, "gone"), (401, "secret"), (404, "URL")])
def test_what_will_not_change_stops_the_sink_at_once(receiver: Receiver, status: int, said: str) -> None:
    receiver.answers = [(status, {"Location": "http://127.0.0.1:9/elsewhere"} if status == 301 else {})]
    sink = made(receiver)
    with pytest.raises(SinkRefusedError, match=said):
        sink.write(grants_batch(1), run_value())
    assert len(receiver.ids) == 1
    sink.abort(run_value(), SinkError("over"))


def test_a_refused_message_costs_its_own_records_alone(receiver: Receiver) -> None:
    receiver.answers = [(204, {}), (422, {}), (204, {})]
    sink = made(receiver, max_records=10)
    batch = grants_batch(25)
    with pytest.raises(RecordRefusedError) as caught:
        sink.write(batch, run_value())
    ids = batch.data.column("record_id").to_pylist()
    assert caught.value.record_ids == frozenset(ids[10:20])
    assert caught.value.rest_written
    sink.abort(run_value(), SinkError("over"))


def test_abort_says_so_once_something_was_sent_and_is_silent_otherwise(receiver: Receiver) -> None:
    silent = made(receiver)
    silent.abort(run_value(), SinkError("over"))
    assert receiver.messages == []
    sink = made(receiver)
    sink.write(grants_batch(1), run_value())
    sink.abort(run_value(), SinkError("over"))
    sink.abort(run_value(), SinkError("over"))
    assert [each["type"] for each in receiver.messages] == ["records.batch", "run.aborted"]


def test_the_shown_target_holds_no_path_and_no_query(receiver: Receiver) -> None:
    sink = WebhookSink(WebhookSink.Config(url=receiver.url))
    assert sink.shown_target() == receiver.url.removesuffix("/hook?key=canary")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_cannot_sign_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", secret)
    with pytest.raises(ConfigError, match="CRDBEXPORT_WEBHOOK_SECRET") as caught:
        WebhookSink(WebhookSink.Config(url="http://127.0.0.1:1"))
    assert "c2hvcnQ" not in str(caught.value)


@pytest.mark.parametrize("url", ["not a url", "ftp://x/y", "https://user:pw@x/y"])
def test_a_url_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CRDBEXPORT_WEBHOOK_SECRET", SECRET)
    with pytest.raises(ConfigError, match="URL"):
        WebhookSink(WebhookSink.Config(url=url))


@pytest.mark.slow
def test_every_record_of_a_run_arrives(
    receiver: Receiver, serve: Callable[[Sandbox], str], export: Callable[..., RunReport]
) -> None:
    url = serve(Sandbox(World(3, 5)))
    report = export(url, sinks={"hook": {"type": "webhook", "target": receiver.url}})
    assert report.exit_code == 0
    arrived: dict[str, set[str]] = {}
    for each in receiver.of("records.batch"):
        arrived.setdefault(each["stream"], set()).update(record["record_id"] for record in each["records"])
    assert {name: len(ids) for name, ids in arrived.items()} == {n: c.extracted for n, c in report.streams.items()}
    assert "canary" not in json.dumps(json.loads(report.to_json()))
    assert receiver.messages[-1]["type"] == "run.completed"


@pytest.mark.slow
def test_a_receiver_that_refuses_a_message_leaves_dead_letters_and_exit_3(
    receiver: Receiver, serve: Callable[[Sandbox], str], export: Callable[..., RunReport]
) -> None:
    receiver.answers = [(422, {})]
    url = serve(Sandbox(World(3, 5)))
    report = export(url, sinks={"hook": {"type": "webhook", "target": receiver.url}})
    assert report.exit_code == 3
    letters = sum(each.dead_lettered for each in report.sinks[0].streams.values())
    assert letters > 0
    assert f"{letters} records refused" in (report.error or "")


def test_a_receiver_that_is_gone_refuses_the_run_for_good(
    receiver: Receiver, serve: Callable[[Sandbox], str], export: Callable[..., RunReport]
) -> None:
    receiver.answers = [(410, {})]
    report = export(serve(Sandbox(World(1, 2))), sinks={"hook": {"type": "webhook", "target": receiver.url}})
    assert report.exit_code == 4
    assert [each["type"] for each in receiver.messages] == ["records.batch"]


def test_reading_the_same_again_makes_no_other_message_and_reading_anew_drops_none(receiver: Receiver) -> None:
    later = replace(run_value(), extracted_at=NOON + timedelta(hours=1))

    def ids_of(run: Run, batch: Batch) -> list[str]:
        before = len(receiver.ids)
        sink = made(receiver, max_records=10)
        sink.write(batch, run)
        sink.abort(run, SinkError("over"))
        return receiver.ids[before:-1]

    first = ids_of(run_value(), grants_batch(25))
    assert ids_of(later, grants_batch(25, at=later.extracted_at)) == first
    changed = ids_of(later, grants_batch(26, at=later.extracted_at))
    assert changed[:2] == first[:2]
    assert changed[2] != first[2]


def test_no_message_is_larger_than_the_option_says(receiver: Receiver) -> None:
    sink = made(receiver, max_bytes=2_000)
    sink.write(grants_batch(60), run_value())
    assert max(map(len, receiver.bodies)) <= 2_000
    assert min(map(len, receiver.bodies[:-1])) > 1_500
    sink.abort(run_value(), SinkError("over"))


def test_dead_letters_do_not_count_as_sent(receiver: Receiver) -> None:
    receiver.answers = [(422, {})]
    sink = made(receiver, max_records=10)
    with pytest.raises(RecordRefusedError):
        sink.write(grants_batch(15), run_value())
    receipt = sink.commit(run_value(), outcome(rows={"database_grants": 15}))
    (completed,) = receiver.of("run.completed")
    assert completed["streams"]["database_grants"] == {"records": 5, "messages": 1}
    assert {each.stream: each.rows for each in receipt.artifacts}["database_grants"] == 5


def test_the_url_is_in_no_log_of_the_host_application(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sink = made(receiver)
    sink.write(grants_batch(1), run_value())
    sink.abort(run_value(), SinkError("over"))
    assert len(receiver.ids) == 2
    assert "canary" not in caplog.text
