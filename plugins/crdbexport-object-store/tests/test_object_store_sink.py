"""The sink in a directory, where everything is fast: names, manifests, what replaces what, what is refused and told."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import tomllib
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import crdbexport_object_store
import pyarrow.dataset as ds
import pytest
from crdbexport_object_store import ObjectStoreSink
from crdbexport_object_store.options import ObjectStoreConfig, check_options
from crdbexport_object_store.store import Store
from crdbexport_object_store.troubles import explained

from crdbexport import ConfigError, CrdbExportError, SinkError, SinkRefusedError, verify
from crdbexport.config import Secret, convert
from crdbexport.errors import SnapshotKeptError
from crdbexport.sinks.manifest import Manifest, read_manifest
from crdbexport.testing.samples import DAY, records, sample_run

CANARY = "crdbexport-canary-77"
TWO = ("databases", "tables")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def config_at(lake: Path, **changes: Any) -> ObjectStoreConfig:
    return ObjectStoreConfig(url=f"file://{lake}", **changes)


def manifests(lake: Path) -> list[Manifest]:
    return [read_manifest(path) for path in sorted((lake / "_manifests").glob("*.json"))]


def files(lake: Path) -> set[str]:
    found = (path.relative_to(lake).as_posix() for path in lake.rglob("*") if path.is_file())
    return {path for path in found if not path.startswith("_manifests/")}


def named(lake: Path) -> set[str]:
    return {file.path for manifest in manifests(lake) for file in manifest.files}


def stray(lake: Path, like: str, attempt: str) -> Path:
    """A file as another attempt at the run would have left it."""
    name = Path(like).name.split(".")
    path = lake / Path(like).parent / ".".join([*name[:2], attempt, *name[3:]])
    path.write_bytes(b"half a file")
    return path


def test_files_lie_where_those_of_the_parquet_sink_lie_each_with_its_attempt(lake: Path, deliver: Any) -> None:
    receipt = deliver(config_at(lake), sample_run(streams=TWO))
    [manifest] = manifests(lake)
    for file, artifact in zip(manifest.files, receipt.artifacts, strict=True):
        directory, _, name = file.path.rpartition("/")
        cluster, run_id, attempt, suffix = name.split(".")
        assert directory == f"{file.stream}/date=2026-01-31"
        assert (cluster, run_id, len(attempt), suffix) == ("c1", "r1", 16, "parquet")
        assert artifact.location == f"file://{lake}/{file.path}"
    assert files(lake) == named(lake)
    assert (lake / "_manifests" / "c1.20260131T000000000000Z.json").is_file()


@pytest.mark.parametrize("options", [{}, {"format": "jsonl"}, {"format": "jsonl", "compression": "zstd"}])
def test_a_copy_of_a_bucket_can_be_verified_as_a_directory(options: Any, lake: Path, deliver: Any) -> None:
    deliver(config_at(lake, **options), sample_run())
    found = verify(lake)
    assert found.findings == ()
    assert (found.files, found.rows) == (6, 30)


def test_a_changed_copy_is_found(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run())
    some = lake / sorted(files(lake))[0]
    some.write_bytes(b"x" + some.read_bytes()[1:])
    assert [finding.kind for finding in verify(lake).findings] == ["altered"]


def test_a_later_run_takes_the_place_of_the_earlier_and_its_files_go(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run())
    deliver(config_at(lake), sample_run("r2", streams=TWO))
    [standing] = manifests(lake)
    assert standing.run_id == "r2"
    assert files(lake) == named(lake)
    assert ds.dataset(lake / "tables").count_rows() == 5


def test_snapshots_of_one_day_stand_side_by_side(lake: Path, deliver: Any) -> None:
    for hour in range(3):
        deliver(config_at(lake), sample_run(f"r{hour}", logical_time=DAY + timedelta(hours=hour), streams=TWO))
    assert [each.run_id for each in manifests(lake)] == ["r0", "r1", "r2"]
    assert len(files(lake)) == 6


def test_an_incomplete_run_does_not_replace_a_complete_one(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run(streams=TWO))
    before = files(lake)
    with pytest.raises(SnapshotKeptError, match="keeps the complete snapshot"):
        deliver(config_at(lake), sample_run("r2", streams=TWO), complete=False)
    assert files(lake) == before


def test_a_run_that_was_read_earlier_does_not_replace_a_later_one(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run(streams=TWO))
    before = files(lake)
    with pytest.raises(SnapshotKeptError, match="keeps the newer snapshot"):
        deliver(config_at(lake), sample_run("r2", streams=TWO, extracted_at=DAY))
    assert files(lake) == before


def test_the_same_run_again_changes_nothing(lake: Path, deliver: Any) -> None:
    first = deliver(config_at(lake), sample_run(streams=TWO))
    before = {path: (lake / path).stat().st_mtime_ns for path in files(lake)}
    assert deliver(config_at(lake), sample_run(streams=TWO)) == first
    assert {path: (lake / path).stat().st_mtime_ns for path in files(lake)} == before


def test_the_same_run_with_other_content_is_refused(lake: Path, deliver: Any) -> None:
    run = sample_run(streams=TWO)
    deliver(config_at(lake), run)
    before = files(lake)
    with pytest.raises(SinkRefusedError, match=r"published already, with other content.*another --run-id"):
        deliver(config_at(lake), run, [("tables", records("tables", 2, run=run))])
    assert files(lake) == before


def test_what_a_dead_attempt_has_left_goes_when_the_snapshot_is_published(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run(streams=TWO))
    like = sorted(files(lake))[0]
    tag = like.split(".")[2][:8]
    dead = stray(lake, like, f"{tag}00000000")
    others = [stray(lake, like, "0000000000000000"), stray(lake, like.replace("c1.", "c2."), f"{tag}00000000")]
    deliver(config_at(lake), sample_run("r2", streams=TWO))
    assert not dead.exists()
    assert all(each.exists() for each in others)  # Of another snapshot of the day, and of another cluster.


def test_a_repeated_run_clears_what_is_older_than_its_commit_and_nothing_newer(lake: Path, deliver: Any) -> None:
    import os

    deliver(config_at(lake), sample_run(streams=TWO))
    like = sorted(files(lake))[0]
    tag = like.split(".")[2][:8]
    dead, alive = stray(lake, like, f"{tag}00000000"), stray(lake, like, f"{tag}11111111")
    long_ago = time.time() - 3600
    os.utime(dead, (long_ago, long_ago))
    deliver(config_at(lake), sample_run(streams=TWO))
    assert not dead.exists()
    assert alive.exists()  # Another run may be about to commit it.


def test_another_format_is_refused_before_the_run(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run(streams=TWO))
    sink = ObjectStoreSink(config_at(lake, format="jsonl"))
    with pytest.raises(ConfigError, match="holds runs in the format parquet; name another prefix"):
        sink.preflight(sample_run(cluster="c2"))


def test_a_damaged_manifest_is_named_before_the_run(lake: Path, deliver: Any) -> None:
    deliver(config_at(lake), sample_run(streams=TWO))
    [path] = (lake / "_manifests").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=rf"_manifests/{path.name}: the manifest is damaged"):
        ObjectStoreSink(config_at(lake)).preflight(sample_run())


def test_a_preflight_leaves_no_object(lake: Path) -> None:
    ObjectStoreSink(config_at(lake)).preflight(sample_run())
    assert [path for path in lake.rglob("*") if path.is_file()] == []


def test_files_wait_in_a_private_directory_that_goes_with_the_run(lake: Path, tmp_path: Path) -> None:
    sink = ObjectStoreSink(config_at(lake, staging_dir=tmp_path / "staging"))
    sink.open(sample_run())
    [directory] = (tmp_path / "staging").iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    sink.abort()
    sink.abort()
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_bucket_in_memory_takes_a_run(deliver: Any) -> None:
    receipt = deliver(ObjectStoreConfig(url="memory:///"), sample_run(streams=TWO))
    assert [artifact.rows for artifact in receipt.artifacts] == [5, 5]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "ftp://host/lake"}, 'option url: "ftp" is no kind of store'),
        ({"url": "/var/lake"}, "option url: not a URL; it begins with one of s3://"),
        ({"url": "file://var/lake"}, "option url: names no directory by its full path"),
        ({"url": "./lake"}, "option url"),
        ({"url": "s3://"}, "option url: names no bucket"),
        ({"url": "s3://user:pass@bucket/lake"}, "option url: holds a user"),
        ({"url": "az://account/box?sig=abc"}, "option url: holds a user, a query"),
        ({"url": "s3://b", "endpoint": "http://minio:9000"}, "option endpoint: requests would travel in clear"),
        ({"url": "s3://b", "compression": "gzip"}, "option compression: Parquet"),
    ],
)
def test_wrong_options_are_refused_by_name(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_options(ObjectStoreConfig(**settings))


def test_a_setting_that_the_store_does_not_have_is_refused_by_name() -> None:
    config = ObjectStoreConfig(url="s3://bucket/lake", store={"nonsense": Secret(CANARY)})
    with pytest.raises(ConfigError, match="nonsense is no setting of this kind of store"):
        Store(config)


@pytest.mark.parametrize(
    "config",
    [
        ObjectStoreConfig(
            url="gs://bucket/lake", store={"skip_signature": Secret("true")}, endpoint="https://gcs.example"
        ),
        ObjectStoreConfig(
            url="az://container/lake", store={"account_name": Secret("box"), "account_key": Secret("c2VjcmV0")}
        ),
    ],
    ids=["gs", "az"],
)
def test_stores_of_other_clouds_take_their_own_settings(config: ObjectStoreConfig) -> None:
    assert Store(config).where == config.url


def test_options_come_from_text_and_show_no_secret() -> None:
    settings = {"url": "s3://b", "secret_access_key": CANARY, "store": {"account_key": CANARY}, "part_bytes": "5242880"}
    config = convert(settings, ObjectStoreConfig, where="sink lake")
    assert config.part_bytes == 5 << 20
    assert CANARY not in repr(config)
    assert config.store["account_key"].reveal() == CANARY


def test_the_sink_names_all_secrets_those_of_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "from-the-environment")
    config = ObjectStoreConfig(url="s3://b", access_key_id=Secret("one-key"), store={"sas_key": Secret("another-key")})
    assert {"one-key", "another-key", "from-the-environment"} <= set(ObjectStoreSink(config).secrets())


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (
            f"PUT http://x?sig={CANARY} status code: 403 Forbidden: <Code>AccessDenied</Code>",
            SinkRefusedError,
            "403 Acc",
        ),
        (f"status code: 404 Not Found: <Code>NoSuchBucket</Code> {CANARY}", ConfigError, "there is no such bucket"),
        (f"status code: 400 Bad Request: <Code>InvalidRegion</Code>{CANARY}", SinkRefusedError, "400 InvalidRegion"),
        (f"status code: 503 Slow Down: {CANARY}", SinkError, r"could not take x \(503\); run the same command again"),
        (f"error sending request for url {CANARY}: HTTP error", SinkError, "cannot be reached"),
        (f"operation timed out {CANARY}: HTTP error", SinkError, "did not answer in time"),
        (f"PUT http://169.254.169.254/latest/api/token {CANARY}", SinkRefusedError, "no credentials were found"),
        (f"Account must be specified {CANARY}", ConfigError, "account_name in the option store"),
        (f"Received redirect without LOCATION {CANARY}", SinkError, "set the option region"),
        (f"Unable to {CANARY}: No space left on device (os error 28)", SinkError, "No space left on device"),
        (CANARY, SinkError, "GenericError"),
    ],
)
def test_trouble_is_told_without_a_word_of_the_answer(text: str, kind: type[Exception], told: str) -> None:
    from obstore.exceptions import GenericError

    error = explained(GenericError(text), "s3://bucket/lake", "take x", SinkError)
    assert type(error) is kind
    assert str(error).startswith("s3://bucket/lake: ")
    with pytest.raises(kind, match=told):
        raise error
    assert CANARY not in str(error)


def test_an_endpoint_that_is_down_is_told_before_the_run_without_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    config = ObjectStoreConfig(
        url="s3://bucket/lake",
        endpoint="http://127.0.0.1:9",
        allow_http=True,
        access_key_id=Secret("exporter"),
        secret_access_key=Secret(CANARY),
        retries=0,
    )
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(SinkError, match="cannot be reached; check the option endpoint") as told,
    ):
        ObjectStoreSink(config).preflight(sample_run())
    assert told.value.__cause__ is None
    assert told.value.__context__ is None
    assert CANARY not in caplog.text


def test_a_directory_that_cannot_be_made_is_refused_before_the_run() -> None:
    with pytest.raises(CrdbExportError, match=r"^file:///proc/none/lake: cannot be opened: No such file"):
        ObjectStoreSink(ObjectStoreConfig(url="file:///proc/none/lake")).preflight(sample_run())


def test_two_sinks_on_one_directory_name_the_same_place(lake: Path) -> None:
    assert list(ObjectStoreSink(config_at(lake)).directories()) == [lake.resolve()]
    assert list(ObjectStoreSink(ObjectStoreConfig(url="s3://bucket/lake")).directories()) == []


def test_the_plugin_registers_the_sink_type_object_store() -> None:
    registered: dict[str, type] = {}
    crdbexport_object_store.crdbexport_register_sinks(registered.__setitem__)
    assert registered == {"object-store": ObjectStoreSink}


def test_the_distribution_declares_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["crdbexport"].items()
    assert EntryPoint(name, module, "crdbexport").load() is crdbexport_object_store


@pytest.mark.slow
def test_loading_the_plugin_does_not_load_obstore() -> None:
    program = "import sys, crdbexport_object_store; assert not [each for each in sys.modules if 'obstore' == each[:7]]"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
