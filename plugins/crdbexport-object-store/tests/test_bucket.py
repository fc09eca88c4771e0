"""The sink on a real S3 server: races, processes that die, refusals before the run, and whole exports."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from crdbexport_object_store import ObjectStoreSink
from crdbexport_object_store.options import ObjectStoreConfig

import crdbexport
from crdbexport import Batch, ConfigError, ExportConfig, SinkError, SinkRefusedError
from crdbexport.cli import main
from crdbexport.config import Secret
from crdbexport.testing.children import in_child
from crdbexport.testing.feed import outcome_of
from crdbexport.testing.samples import DAY, sample_run, some_of_everything

pytestmark = pytest.mark.slow

TWO = ("databases", "tables")
RUN = sample_run(streams=TWO)
LATER = sample_run("r2", streams=TWO)
CANARY = "crdbexport-canary-of-a-bucket"


@dataclass(frozen=True)
class Doomed:
    """Delivers the run in a process that writes its number into `note`, so that it can be killed."""

    config: ObjectStoreConfig
    note: Path

    def __call__(self) -> dict[str, Any]:
        self.note.write_text(str(os.getpid()))
        sink = ObjectStoreSink(self.config)
        sink.preflight(RUN)
        sink.open(RUN)
        batches = some_of_everything(RUN)
        for number, (stream, data) in enumerate(batches):
            sink.write(Batch(stream, number, data))
        sink.commit(RUN, outcome_of(RUN, batches))
        return {}

    def kill(self) -> None:
        os.kill(int(self.note.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("standing", [False, True], ids=["of a new snapshot", "of a standing one"])
def test_of_two_who_publish_a_snapshot_one_wins_and_the_other_is_told(
    standing: bool, bucket: Any, proxy: Any, deliver: Any
) -> None:
    if standing:
        deliver(bucket.config(), sample_run("r0", streams=TWO))
    proxy.before("manifest", lambda: deliver(bucket.config(), RUN))
    with pytest.raises(SinkError, match=r'another process has published cluster "c1" at .* run the same command again'):
        deliver(bucket.config(endpoint=proxy.url), LATER)
    [manifest] = bucket.manifests()
    assert manifest.run_id == "r1"
    bucket.assert_holds_only_what_manifests_name()
    deliver(bucket.config(), LATER)
    assert [each.run_id for each in bucket.manifests()] == ["r2"]
    bucket.assert_holds_only_what_manifests_name()


def test_two_processes_with_the_same_run_do_not_mix_their_files(bucket: Any, proxy: Any, deliver: Any) -> None:
    proxy.before("manifest", lambda: deliver(bucket.config(compression_level=9), RUN))
    with pytest.raises(SinkError, match="another process has published"):
        deliver(bucket.config(endpoint=proxy.url), RUN)
    assert {stream: len(rows) for stream, rows in bucket.rows().items()} == {"databases": 5, "tables": 5}
    bucket.assert_holds_only_what_manifests_name()


def test_a_run_that_begins_after_a_commit_loses_nothing_to_the_clearing_up_after_it(
    bucket: Any, proxy: Any, deliver: Any
) -> None:
    deliver(bucket.config(), sample_run("r0", streams=TWO))
    proxy.before("manifest", lambda: proxy.before("delete", lambda: deliver(bucket.config(), LATER)))
    deliver(bucket.config(endpoint=proxy.url), RUN)
    [manifest] = bucket.manifests()
    assert manifest.run_id == "r2"
    bucket.assert_holds_only_what_manifests_name()


def test_snapshots_and_clusters_do_not_get_in_each_others_way(bucket: Any, proxy: Any, deliver: Any) -> None:
    other_day = replace(RUN, logical_time=DAY + timedelta(hours=1))
    other_cluster = replace(RUN, cluster="c2")
    proxy.before("manifest", lambda: [deliver(bucket.config(), each) for each in (other_day, other_cluster)])
    deliver(bucket.config(endpoint=proxy.url), RUN)
    assert len(bucket.manifests()) == 3
    bucket.assert_holds_only_what_manifests_name()


@pytest.mark.parametrize("operation", ["part", "complete", "manifest"])
def test_a_process_that_is_killed_leaves_no_manifest_and_the_same_run_again_sweeps(
    operation: str, bucket: Any, proxy: Any, deliver: Any, tmp_path: Path
) -> None:
    deliver(bucket.config(), sample_run("r0", streams=TWO))
    doomed = Doomed(bucket.config(endpoint=proxy.url), tmp_path / "process")

    def kill() -> None:
        doomed.kill()
        time.sleep(0.05)

    proxy.before(operation, kill)
    proxy.fail(operation, "reset", 1)
    assert in_child(doomed, 30).killed
    assert [each.run_id for each in bucket.manifests()] == ["r0"]
    if operation == "manifest":
        assert len(bucket.objects()) == 1 + 2 + 2  # What the dead process has put is there, and named by nothing.
    deliver(bucket.config(), RUN)
    assert [each.run_id for each in bucket.manifests()] == ["r1"]
    bucket.assert_holds_only_what_manifests_name()


def test_unfinished_uploads_of_a_killed_process_stay_hidden_until_the_bucket_removes_them(
    bucket: Any, proxy: Any, deliver: Any, tmp_path: Path
) -> None:
    """obstore can neither list nor end them; a lifecycle rule of the bucket does."""
    doomed = Doomed(bucket.config(endpoint=proxy.url), tmp_path / "process")
    proxy.before("complete", doomed.kill)
    proxy.fail("complete", "reset", 1)
    assert in_child(doomed, 30).killed
    deliver(bucket.config(), RUN)
    assert bucket.unfinished_uploads() == 1
    bucket.assert_holds_only_what_manifests_name()


def test_an_upload_that_fails_in_a_living_process_is_ended(bucket: Any, proxy: Any, deliver: Any) -> None:
    proxy.fail("part", "500", 1_000)
    with pytest.raises(SinkError, match="could not take"):
        deliver(bucket.config(endpoint=proxy.url), RUN)
    assert bucket.unfinished_uploads() == 0


def refused_before_the_run(config: ObjectStoreConfig) -> Exception:
    began = time.monotonic()
    with pytest.raises((ConfigError, SinkError)) as told:
        ObjectStoreSink(config).preflight(RUN)
    assert time.monotonic() - began < 15
    assert told.value.__context__ is None
    return told.value


def test_a_bucket_that_is_not_there_is_refused_before_the_run(bucket: Any) -> None:
    error = refused_before_the_run(bucket.config(url="s3://no-such-bucket/lake"))
    assert isinstance(error, ConfigError)
    assert str(error) == "s3://no-such-bucket/lake: there is no such bucket; create it, or correct the URL"


@pytest.mark.parametrize("operation", ["probe", "delete", "list", "get"])
def test_a_right_that_is_missing_is_refused_before_the_run(operation: str, bucket: Any, proxy: Any) -> None:
    proxy.fail(operation, "403", 1_000)
    error = refused_before_the_run(bucket.config(endpoint=proxy.url))
    assert isinstance(error, SinkRefusedError)
    assert re.search(r"the store refused to \w+ _\S+ \(403 AccessDenied\); check the credentials", str(error))


def test_a_store_that_ignores_conditions_is_refused_before_the_run(bucket: Any, proxy: Any) -> None:
    proxy.withheld = "if-none-match"
    error = refused_before_the_run(bucket.config(endpoint=proxy.url))
    assert isinstance(error, ConfigError)
    assert "the store overwrites what it was told to create" in str(error)
    assert bucket.objects() == {}


def test_a_failing_store_is_refused_soon(bucket: Any, proxy: Any) -> None:
    proxy.fail("probe", "503", 1_000)
    error = refused_before_the_run(bucket.config(endpoint=proxy.url, retries=10, request_timeout_seconds=60.0))
    assert type(error) is SinkError
    assert proxy.failed == 2


def exported(url: str, state: Path, options: dict[str, Any], **changes: Any) -> crdbexport.RunReport:
    settings: dict[str, Any] = {
        "url": (url,),
        "cluster": "c1",
        "username": "demo",
        "password": Secret("demo"),
        "run_id": "r1",
        "state_dir": state,
        "sinks": {"lake": {"type": "object-store", **options}},
    }
    return crdbexport.export(ExportConfig(**{**settings, **changes}))


def sink_options(bucket: Any, endpoint: str, **changes: Any) -> dict[str, Any]:
    return {
        "target": f"s3://{bucket.name}/lake",
        "endpoint": endpoint,
        "region": "us-east-1",
        "allow_http": "true",
        "access_key_id": "exporter",
        "secret_access_key": CANARY,
        "part_bytes": "4096",
        "retries": "1",
        **changes,
    }


def test_an_export_is_in_the_bucket_and_what_it_tells_is_true(
    bucket: Any, crdb_sandbox: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = exported(crdb_sandbox, tmp_path / "state", sink_options(bucket, bucket.endpoint))
    assert report.exit_code == 0
    [sink] = report.sinks
    rows = bucket.rows()
    assert {name: told.delivered for name, told in sink.streams.items()} == {name: len(rows[name]) for name in rows}
    assert sum(map(len, rows.values())) > 100
    assert sink.bytes == sum(artifact.size_bytes or 0 for artifact in sink.artifacts)
    assert {artifact.location.removeprefix(f"s3://{bucket.name}/lake/") for artifact in sink.artifacts} == {
        path for path in bucket.objects() if not path.startswith("_manifests/")
    }
    again = exported(crdb_sandbox, tmp_path / "state", sink_options(bucket, bucket.endpoint))
    assert again.exit_code == 0
    bucket.assert_holds_only_what_manifests_name()
    assert_hidden(bucket, tmp_path, caplog.text + report.to_json().decode())


def test_an_export_whose_store_fails_delivers_when_it_is_asked_again(
    bucket: Any, proxy: Any, crdb_sandbox: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = sink_options(bucket, proxy.url)
    proxy.fail("complete", "503", 1_000)
    proxy.fail("put", "503", 1_000)
    failed = exported(crdb_sandbox, tmp_path / "state", options)
    assert failed.exit_code == 5
    assert "503 SlowDown" in (failed.sinks[0].error or "")
    assert bucket.objects() == {}
    proxy.mend()
    report = exported(crdb_sandbox, tmp_path / "state", options)
    assert report.exit_code == 0
    assert len(bucket.rows()["databases"]) == 3
    assert_hidden(bucket, tmp_path, caplog.text + (failed.to_json() + report.to_json()).decode())


def assert_hidden(bucket: Any, place: Path, told: str) -> None:
    assert CANARY not in told
    written = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert all(CANARY.encode() not in data for data in [*written, *bucket.objects().values()])
    assert written


@pytest.mark.parametrize("name", ["lake-bucket", ""])
def test_check_asks_the_store_as_well(
    name: str, bucket: Any, crdb_sandbox: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    target = f"s3://{bucket.name}/lake" if name else "s3://no-such-bucket/lake"
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "demo")
    monkeypatch.setenv("CRDBEXPORT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "exporter")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    options = [f"object-store.endpoint={bucket.endpoint}", "object-store.allow_http=true"]
    command = ["crdbexport", "check", "--url", crdb_sandbox, "--cluster", "c1", "--username", "demo"]
    command += ["--sink", f"object-store:{target}", *(part for each in options for part in ("--sink-option", each))]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err
    if name:
        assert ended.value.code in (0, None)
    else:
        assert ended.value.code == 2
        assert "there is no such bucket; create it" in told.err
    assert bucket.objects() == {}
