from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from crdbexport.errors import ConfigError
from crdbexport.records import Gap
from crdbexport.sinks.manifest import (
    Manifest,
    ManifestFile,
    decode_manifest,
    lost_its_checksum,
    manifest_of,
    read_manifest,
    write_manifest,
)
from tests.sinks.lake_support import DAY, a_run, an_outcome

FILES = (
    ManifestFile("tables/date=2026-11-23/prod.one.parquet", "tables", 3, 99, "a" * 64),
    ManifestFile("columns/date=2026-11-23/prod.one.parquet", "columns", 0, 9, "b" * 64),
)
GAP = Gap(database="bank", part="details", reason="forbidden", http_status=403)


def a_manifest() -> Manifest:
    return manifest_of(a_run(), an_outcome(complete=False, gaps=(GAP,)), "parquet", FILES)


def written(tmp_path: Path) -> Path:
    path = tmp_path / "prod.one.json"
    write_manifest(a_manifest(), path, via=tmp_path / "temporary")
    return path


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path)) == a_manifest()
    assert [path.name for path in tmp_path.iterdir()] == ["prod.one.json"]


def test_no_thread_is_the_first_to_decode_a_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Decoders are made while the module is imported: two threads that meet a type first may crash msgspec."""
    path = written(tmp_path)
    monkeypatch.delattr("msgspec.json.decode")
    monkeypatch.delattr("msgspec.json.Decoder")
    assert read_manifest(path) == a_manifest()


def test_a_manifest_is_plain_json_in_declared_order(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path).read_text())
    assert list(content) == [
        "schema_version",
        "cluster",
        "run_id",
        "logical_time",
        "extracted_at",
        "complete",
        "sink",
        "rows",
        "files",
        "gaps",
        "checksum",
    ]
    assert content["schema_version"] == 1
    assert content["logical_time"] == "2026-11-23T00:00:00Z"
    assert content["rows"] == {"tables": 3, "columns": 0}
    assert content["files"][0] == {
        "path": "tables/date=2026-11-23/prod.one.parquet",
        "stream": "tables",
        "rows": 3,
        "size_bytes": 99,
        "sha256": "a" * 64,
    }
    assert content["gaps"] == [{"database": "bank", "part": "details", "reason": "forbidden", "http_status": 403}]


def test_the_checksum_is_that_of_the_document_without_it(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path).read_text())
    checksum = content.pop("checksum")
    assert hashlib.sha256(json.dumps(content, indent=2).encode()).hexdigest() == checksum


def test_a_manifest_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = without_checksum(written(tmp_path))
    assert read_manifest(path) == a_manifest()
    assert not lost_its_checksum(path.read_bytes())


def without_checksum(path: Path) -> Path:
    """The manifest as early versions wrote it."""
    path.write_bytes(re.sub(rb',\n  "checksum": "\w{64}"', b"", path.read_bytes()))
    assert b"checksum" not in path.read_bytes()
    return path


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    assert not lost_its_checksum(whole)
    lost = 0
    for position in range(8 * len(whole)):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        try:
            decode_manifest(bytes(data))
        except ConfigError as error:
            assert "damaged" in str(error)
        else:
            lost += 1
            assert lost_its_checksum(bytes(data))
    # Only the checksum itself may be damaged while the rest is still read: its name, its value.
    assert 0 < lost <= 8 * (len("checksum") + 64)


def test_equal_manifests_have_equal_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first


def test_times_are_kept_in_utc() -> None:
    east = timezone(timedelta(hours=5))
    manifest = manifest_of(a_run(day=datetime(2026, 11, 23, 2, tzinfo=east)), an_outcome(), "jsonl", ())
    assert manifest.logical_time == datetime(2026, 11, 22, 21, tzinfo=UTC)
    assert manifest.logical_time.utcoffset() == timedelta(0)


def test_a_manifest_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({"schema_version": 2, "runs": "another shape"}))
    with pytest.raises(ConfigError, match=r"schema version 2, known here: 1\); update crdbexport") as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_fields_of_the_future_do_not_disturb(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "extra": [1]}))
    assert read_manifest(path) == a_manifest()


@pytest.mark.slow
def test_a_manifest_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes().rstrip()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ConfigError, match="damaged") as caught:
            read_manifest(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b'{"schema_version": "1"}', b"\x00" * 512])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        read_manifest(path)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc/passwd", "tables/../../x"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, path: str) -> None:
    place = written(tmp_path)
    content = json.loads(place.read_text())
    content["files"][0]["path"] = path
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="leaves the directory"):
        read_manifest(place)


def test_runs_of_one_cluster_and_logical_time_are_one_snapshot() -> None:
    manifest = a_manifest()
    assert manifest.same_snapshot(msgspec.structs.replace(manifest, run_id="two"))
    assert not manifest.same_snapshot(msgspec.structs.replace(manifest, cluster="another"))
    assert not manifest.same_snapshot(msgspec.structs.replace(manifest, logical_time=DAY + timedelta(days=1)))
