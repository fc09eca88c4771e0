"""Whatever happens to a published tree is found, and nothing is found that a living process does to it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import crdbexport
from crdbexport.errors import ConfigError, StorageError
from crdbexport.records import STREAMS
from crdbexport.sinks.findings import Finding, Tally
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import read_manifest, write_manifest
from crdbexport.sinks.verifying import verify
from tests.sinks.lake_support import (
    DAY,
    SINKS,
    TWO_STREAMS,
    a_run,
    all_files,
    deliver,
    everything,
    jsonl,
    manifests,
    parquet,
    publish_new,
    publish_old,
    records,
    recover,
    script,
)

KINDS = pytest.mark.parametrize("kind", SINKS)
TABLES = "tables/date=2026-11-23/prod.one"


def publish(lake: Path, kind: str = "jsonl", run_id: str = "one", *, rows: int = 5, **run: Any) -> None:
    described = a_run(run_id, **{"streams": TWO_STREAMS, **run})
    deliver(SINKS[kind](lake), described, everything(described, rows))


def two_runs(lake: Path, kind: str) -> None:
    publish(lake, kind)
    publish(lake, kind, "two", rows=6, day=DAY + timedelta(days=1))


def findings(lake: Path, **options: Any) -> tuple[Finding, ...]:
    return verify(lake, **options).findings


def told(lake: Path, **options: Any) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in findings(lake, **options)]


# -- what is whole


@KINDS
def test_a_clean_tree_is_told_with_its_counts(tmp_path: Path, kind: str) -> None:
    two_runs(tmp_path, kind)
    verification = crdbexport.verify(tmp_path)
    assert verification == crdbexport.Verification(
        directory=str(tmp_path),
        runs=2,
        files=4,
        rows=22,
        size_bytes=sum((tmp_path / file.path).stat().st_size for each in manifests(tmp_path) for file in each.files),
        findings=(),
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("chunk", [1, 1_000, 1_000_000])
def test_json_lines_are_counted_whatever_is_read_at_a_time(
    tmp_path: Path, compression: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdbexport.sinks.jsonl._CHUNK_BYTES", chunk)
    run = a_run(streams=TWO_STREAMS)
    deliver(jsonl(tmp_path, compression=compression), run, everything(run, 100))
    verification = verify(tmp_path)
    assert (verification.rows, verification.findings) == (200, ())


@pytest.mark.slow
def test_every_row_group_is_read_back(tmp_path: Path) -> None:
    run = a_run(streams=["tables"])
    deliver(parquet(tmp_path, row_group_rows=1_000), run, everything(run, 2_500))
    assert verify(tmp_path).rows == 2_500


@KINDS
def test_streams_without_rows_are_whole(tmp_path: Path, kind: str) -> None:
    publish(tmp_path, kind, rows=0, streams=STREAMS)
    assert (verify(tmp_path).files, verify(tmp_path).rows, findings(tmp_path)) == (len(STREAMS), 0, ())


def test_checking_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "tables/stray").touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert findings(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_copy_without_staging_is_checked_and_stays_without(tmp_path: Path) -> None:
    publish(tmp_path)
    shutil.rmtree(tmp_path / "_staging")
    assert told(tmp_path) == []
    (tmp_path / "tables/stray").touch()
    assert told(tmp_path) == [("orphan", "tables/stray")]
    assert not (tmp_path / "_staging").exists()


# -- what is damaged


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    whole = path.read_bytes()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    yield
    path.write_bytes(whole)


def flip(lake: Path, times: int, seed: int) -> set[str]:
    """Flip one bit at a time anywhere in the lake, and check that each is found; the directories that were hit."""
    rng = random.Random(seed)
    paths = [path for path in all_files(lake) if not path.startswith("_staging")]
    hit = set()
    for _ in range(times):
        path = rng.choice(paths)
        with flipped(lake / path, rng.randrange(8 * (lake / path).stat().st_size)):
            assert [finding for finding in findings(lake) if finding.path == path], (
                f"{path}: a flipped bit is not found"
            )
        hit.add(path.partition("/")[0])
    assert findings(lake) == ()
    return hit


@KINDS
def test_flipped_bits_are_found(tmp_path: Path, kind: str) -> None:
    two_runs(tmp_path, kind)
    assert flip(tmp_path, 30, seed=1) == {*TWO_STREAMS, "_manifests"}


@pytest.mark.slow
@KINDS
def test_three_hundred_flipped_bits_are_found(tmp_path: Path, kind: str) -> None:
    two_runs(tmp_path, kind)
    assert flip(tmp_path, 300, seed=2) == {*TWO_STREAMS, "_manifests"}


@KINDS
def test_a_file_cut_anywhere_is_found(tmp_path: Path, kind: str) -> None:
    publish(tmp_path, kind)
    for path in (*(file.path for file in manifests(tmp_path)[0].files), "_manifests/prod.one.json"):
        whole = (tmp_path / path).read_bytes()
        for end in (0, 1, len(whole) // 2, len(whole) - 1):
            (tmp_path / path).write_bytes(whole[:end])
            assert path in [finding.path for finding in findings(tmp_path)]
        (tmp_path / path).write_bytes(whole)
    assert findings(tmp_path) == ()


@KINDS
def test_a_deleted_file_is_missing(tmp_path: Path, kind: str) -> None:
    two_runs(tmp_path, kind)
    (tmp_path / f"{TABLES}.{kind}").unlink()
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("missing", f"{TABLES}.{kind}")
    assert finding.message.endswith(
        "restore it from a copy, or remove _manifests/prod.one.json and then the files that it names"
    )
    (tmp_path / f"{TABLES}.{kind}").mkdir()
    assert told(tmp_path) == [("missing", f"{TABLES}.{kind}")]


def test_swapped_files_are_found_both(tmp_path: Path) -> None:
    two_runs(tmp_path, "parquet")
    one, two = tmp_path / f"{TABLES}.parquet", tmp_path / "tables/date=2026-11-24/prod.two.parquet"
    one.rename(tmp_path / "swap")
    two.rename(one)
    (tmp_path / "swap").rename(two)
    assert {path for _, path in told(tmp_path)} == {str(each.relative_to(tmp_path)) for each in (one, two)}


def test_an_appended_row_is_found(tmp_path: Path) -> None:
    publish(tmp_path)
    path = tmp_path / f"{TABLES}.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("altered", f"{TABLES}.jsonl")
    sizes = (manifests(tmp_path)[0].files[1].size_bytes, path.stat().st_size)
    assert finding.message.startswith(f"has {sizes[1]:,} bytes where its manifest tells {sizes[0]:,}; restore it")


ADDED = [
    "tables/x.jsonl",
    "tables/date=2026-11-23/.hidden",
    "columns/date=2026-11-23/prod.copy.jsonl",
    "databases/a/b/c.csv",
]


@pytest.mark.parametrize("path", ADDED)
def test_an_added_file_is_an_orphan(tmp_path: Path, path: str) -> None:
    publish(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    (tmp_path / "notes.txt").write_text("no reader of a stream looks here")
    assert told(tmp_path) == [("orphan", path)]


def test_a_name_that_is_not_utf_8_is_told_all_the_same(tmp_path: Path) -> None:
    publish(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/tables/\xff")).touch()
    assert told(tmp_path) == [("orphan", "tables/\\xff")]
    assert json.loads(msgspec.json.encode(verify(tmp_path)))["findings"][0]["path"] == "tables/\\xff"


# -- what is as published, and yet not what its manifest says


def forge(lake: Path, content: bytes | None = None, **changes: Any) -> None:
    """Let the manifest of run one tell the truth about bytes that no sink has written, or other rows."""
    lake_paths = Lake(lake)
    [manifest] = manifests(lake)
    files = []
    for file in manifest.files:
        if file.stream != "tables":
            files.append(file)
            continue
        if content is not None:
            lake_paths.place(file).write_bytes(content)
        data = lake_paths.place(file).read_bytes()
        seen = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        files.append(msgspec.structs.replace(file, **{**seen, **changes}))
    forged = msgspec.structs.replace(manifest, files=tuple(files), rows={each.stream: each.rows for each in files})
    write_manifest(forged, lake_paths.manifest("prod.one"), via=lake / "_staging/forged")


def the_problem(lake: Path) -> str:
    [finding] = findings(lake)
    assert finding.kind == "unfit"
    assert finding.path.startswith(TABLES)
    return finding.message.partition(";")[0]


@KINDS
def test_rows_are_counted_and_not_believed(tmp_path: Path, kind: str) -> None:
    publish(tmp_path, kind)
    forge(tmp_path, rows=6)
    assert the_problem(tmp_path) == "holds 5 rows where its manifest tells 6"


def lines(lake: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lake / f"{TABLES}.jsonl").read_bytes().splitlines()]


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def reordered(row: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(row.items()))


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


CHANGED_LINES: dict[str, Callable[[list[dict[str, Any]]], list[Any]]] = {
    "line 2 does not have the fields of the stream": lambda rows: [rows[0], without(rows[1], "kind"), *rows[2:]],
    "line 5 does not have the fields of the stream": lambda rows: [*rows[:4], {**rows[4], "more": 1}],
    "line 1 does not have the fields of the stream": lambda rows: [reordered(row) for row in rows],
    "line 3 is not a JSON object": lambda rows: [*rows[:2], [], *rows[3:]],
}


@pytest.mark.parametrize("problem", CHANGED_LINES)
def test_lines_with_other_fields_are_found(tmp_path: Path, problem: str) -> None:
    publish(tmp_path)
    forge(tmp_path, as_lines(CHANGED_LINES[problem](lines(tmp_path))))
    assert the_problem(tmp_path) == problem


def test_lines_without_a_required_field_are_found(tmp_path: Path) -> None:
    publish(tmp_path)
    forge(tmp_path, as_lines([without(row, "table_name") for row in lines(tmp_path)]))
    assert the_problem(tmp_path) == "line 1 does not have the fields of the stream"


@pytest.mark.parametrize("line", [b"{\n", b"\xff\n", b'{"\xff": 1}\n', b"\n", b"1 2\n"])
def test_a_line_that_is_no_json_is_found(tmp_path: Path, line: bytes) -> None:
    publish(tmp_path)
    forge(tmp_path, line)
    assert the_problem(tmp_path) == "line 1 is not a JSON object"


def test_a_last_line_without_an_end_is_found(tmp_path: Path) -> None:
    publish(tmp_path)
    forge(tmp_path, (tmp_path / f"{TABLES}.jsonl").read_bytes()[:-1])
    assert the_problem(tmp_path) == "its last line has no end"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_cannot_be_decompressed_is_found(tmp_path: Path, compression: str) -> None:
    run = a_run(streams=TWO_STREAMS)
    deliver(jsonl(tmp_path, compression=compression), run, everything(run))
    forge(tmp_path, b"not compressed\n")
    assert the_problem(tmp_path) == f"it cannot be decompressed ({compression})"


def test_a_compressed_file_that_ends_early_is_found(tmp_path: Path) -> None:
    run = a_run(streams=TWO_STREAMS)
    deliver(jsonl(tmp_path, compression="gzip"), run, everything(run))
    [path] = (tmp_path / "tables").rglob("*.gz")
    half = gzip.compress(gzip.decompress(path.read_bytes()))[:-30]
    forge(tmp_path, half)
    assert the_problem(tmp_path)


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def the_table(lake: Path) -> pa.Table:
    return pq.ParquetFile(lake / f"{TABLES}.parquet").read()


def test_a_parquet_file_of_another_schema_is_found(tmp_path: Path) -> None:
    publish(tmp_path, "parquet")
    table = the_table(tmp_path)
    index = table.schema.get_field_index("size_bytes")
    others = [
        table.drop_columns("table_name"),
        table.append_column("more", pa.nulls(5)),
        table.set_column(index, "size_bytes", table["size_bytes"].cast(pa.float64(), safe=False)),
        table.select(table.column_names[::-1]),
    ]
    for other in others:
        forge(tmp_path, parquet_bytes(other))
        assert the_problem(tmp_path) == "its schema is not that of the stream"


def test_a_page_whose_checksum_is_wrong_is_found_by_itself(tmp_path: Path) -> None:
    publish(tmp_path, "parquet")
    path = tmp_path / f"{TABLES}.parquet"
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size - 1] ^= 1
    forge(tmp_path, bytes(data))
    assert the_problem(tmp_path).startswith("not a whole Parquet file: ")


def test_what_is_no_parquet_file_is_found(tmp_path: Path) -> None:
    publish(tmp_path, "parquet")
    forge(tmp_path, b"PAR1 is how they begin")
    assert the_problem(tmp_path).startswith("not a whole Parquet file: ")


@KINDS
def test_files_of_before_a_stream_gained_a_nullable_field_are_whole(tmp_path: Path, kind: str) -> None:
    publish(tmp_path, kind)
    if kind == "parquet":
        forge(tmp_path, parquet_bytes(the_table(tmp_path).drop_columns(["kind", "store_ids"])))
    else:
        forge(tmp_path, as_lines([without(without(row, "kind"), "store_ids") for row in lines(tmp_path)]))
    assert findings(tmp_path) == ()


def test_a_stream_of_the_future_is_told(tmp_path: Path) -> None:
    publish(tmp_path)
    forge(tmp_path, stream="regions")
    assert the_problem(tmp_path) == 'stream "regions" of a "jsonl" sink is not known here'


# -- manifests


def test_a_damaged_manifest_is_told_and_its_files_are_not_called_orphans(tmp_path: Path) -> None:
    two_runs(tmp_path, "jsonl")
    (tmp_path / "_manifests/prod.one.json").write_text("{")
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("manifest", "_manifests/prod.one.json")
    assert finding.message.startswith("the manifest is damaged (")


def test_a_manifest_under_another_name_is_told(tmp_path: Path) -> None:
    publish(tmp_path)
    shutil.copy(tmp_path / "_manifests/prod.one.json", tmp_path / "_manifests/prod.copy.json")
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("manifest", "_manifests/prod.copy.json")
    assert 'that of run "one" of cluster "prod"' in finding.message


def test_rows_by_stream_are_those_of_the_files(tmp_path: Path) -> None:
    publish(tmp_path)
    path = tmp_path / "_manifests/prod.one.json"
    write_manifest(msgspec.structs.replace(read_manifest(path), rows={"tables": 5}), path, via=tmp_path / "via")
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("manifest", "_manifests/prod.one.json")


def test_a_manifest_of_an_early_version_is_checked_without_its_checksum(tmp_path: Path) -> None:
    publish(tmp_path)
    path = tmp_path / "_manifests/prod.one.json"
    content = json.loads(path.read_bytes())
    del content["checksum"]
    path.write_text(json.dumps(content, indent=2))
    assert findings(tmp_path) == ()
    path.write_text(json.dumps({**content, "checksun": "0" * 64}))
    assert told(tmp_path) == [("manifest", "_manifests/prod.one.json")]


# -- what dead and living processes do


def unfinish(lake: Path, stem: str) -> None:
    """Turn a published run into one whose process died right before the manifest appeared."""
    Lake(lake).staging(stem).mkdir()
    Lake(lake).manifest(stem).rename(Lake(lake).prepared(stem))


def test_an_interrupted_publication_is_told_with_what_finishes_it(tmp_path: Path) -> None:
    two_runs(tmp_path, "jsonl")
    unfinish(tmp_path, "prod.one")
    [finding] = findings(tmp_path)
    assert (finding.kind, finding.path) == ("interrupted", "_staging/prod.one/prepared.json")
    assert finding.message == (
        'run "one" was being published when its process died; '
        "run any export to this directory, which finishes that first"
    )
    recover(tmp_path, "jsonl")
    assert findings(tmp_path) == ()


def test_a_damaged_prepared_manifest_is_told(tmp_path: Path) -> None:
    publish(tmp_path)
    unfinish(tmp_path, "prod.one")
    Lake(tmp_path).prepared("prod.one").write_text("{")
    assert told(tmp_path) == [("manifest", "_staging/prod.one/prepared.json")]


def test_files_that_a_dead_process_was_removing_are_told(tmp_path: Path) -> None:
    two_runs(tmp_path, "jsonl")
    lake = Lake(tmp_path)
    lake.staging("prod.three").mkdir()
    lake.manifest("prod.one").rename(lake.aside("prod.three", "prod.one"))
    assert told(tmp_path) == [("interrupted", "_staging/prod.three")]
    lock = lake.hold("prod.three")
    assert lock is not None
    assert told(tmp_path) == [], "a living process is about to remove them itself"
    lake.let_go(lock)
    recover(tmp_path, "jsonl")
    assert told(tmp_path) == []


def test_a_run_that_is_being_written_is_no_finding(tmp_path: Path) -> None:
    publish(tmp_path)
    sink = jsonl(tmp_path)
    sink.open(run=a_run("open"))
    assert told(tmp_path) == []
    sink.abort()


def test_a_run_that_is_superseded_while_it_is_looked_at_is_no_finding(tmp_path: Path) -> None:
    publish(tmp_path)
    seen: list[Tally] = []

    def supersede(tally: Tally) -> None:
        if not seen:
            publish(tmp_path, run_id="later")
        seen.append(tally)

    assert findings(tmp_path, watch=supersede) == ()
    assert len(seen) == 2
    assert not (tmp_path / f"{TABLES}.jsonl").exists()


def test_a_run_that_is_published_anew_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    publish(tmp_path)
    seen: list[Tally] = []

    def publish_anew(tally: Tally) -> None:
        if not seen:
            publish(tmp_path, run_id="later")
            publish(tmp_path, rows=9)
        seen.append(tally)

    verification = verify(tmp_path, watch=publish_anew)
    assert verification.findings == ()
    assert len(seen) == 4
    assert verification.rows == 2 * 9


@pytest.mark.slow
def test_runs_that_are_published_meanwhile_are_no_findings(tmp_path: Path) -> None:
    two_runs(tmp_path, "jsonl")
    stop = threading.Event()
    published = [0]

    def keep_publishing() -> None:
        while not stop.is_set():
            published[0] += 1
            publish(tmp_path, run_id=f"run-{published[0] % 3}", rows=published[0] % 7)

    publisher = threading.Thread(target=keep_publishing)
    publisher.start()
    try:
        found: list[Finding] = []
        while published[0] < 30 and publisher.is_alive():
            found += findings(tmp_path)
    finally:
        stop.set()
        publisher.join()
    assert found == []
    assert published[0] >= 30, "the publisher failed"


@pytest.mark.slow
@KINDS
def test_a_tree_left_by_a_crash_anywhere_is_whole_but_for_what_is_interrupted(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "lakes"
    base.mkdir()
    subprocess.run(**script("crash-everywhere", str(base), kind), check=True)
    kinds = {finding.kind for lake in base.iterdir() for finding in findings(lake)}
    assert kinds == {"interrupted"}
    for lake in base.iterdir():
        recover(lake, kind)
        assert findings(lake) == ()


# -- one cluster, no lake, no access


def test_one_cluster_may_be_checked_alone(tmp_path: Path) -> None:
    for cluster in ("a", "a.b", "b"):
        publish(tmp_path, cluster=cluster)
    for name in ("a.one", "a%2Eb.one"):
        (tmp_path / f"tables/date=2026-11-23/{name}.jsonl").unlink()
    (tmp_path / "tables/a.stray").touch()
    assert told(tmp_path, cluster="a") == [
        ("missing", "tables/date=2026-11-23/a.one.jsonl"),
        ("orphan", "tables/a.stray"),
    ]
    unfinish(tmp_path, "a%2Eb.one")
    assert verify(tmp_path, cluster="b").files == 2
    assert told(tmp_path, cluster="b") == []


def test_a_cluster_that_was_never_published_is_refused(tmp_path: Path) -> None:
    publish(tmp_path)
    with pytest.raises(ConfigError, match='holds nothing of cluster "prdo"; name one that was exported here'):
        verify(tmp_path, cluster="prdo")


@pytest.mark.parametrize("place", ["nowhere", "", "file"])
def test_what_is_no_lake_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"nothing was published here .*; name the directory"):
        verify(tmp_path / place)


def test_a_lake_in_which_nothing_is_committed_yet_is_clean(tmp_path: Path) -> None:
    recover(tmp_path, "jsonl")
    assert verify(tmp_path).runs == 0


def test_a_file_that_cannot_be_read_now_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_runs(tmp_path, "jsonl")
    whole, calls = hashlib.file_digest, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", failing)
    verification = verify(tmp_path)
    [finding] = verification.findings
    assert (finding.kind, finding.message) == ("unreadable", "Input/output error; mend that, then verify it again")
    assert (verification.files, len(calls)) == (3, 4)


def test_a_directory_that_cannot_be_listed_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    scandir = os.scandir

    def failing(path: Any) -> Any:
        if Path(path).name == "tables":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(StorageError, match=r"tables: Permission denied; mend that, then run the same command"):
        verify(tmp_path)


def test_who_may_not_lock_the_lake_checks_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    two_runs(tmp_path, "jsonl")
    unfinish(tmp_path, "prod.one")
    (tmp_path / "tables/stray").touch()

    def denied(lake: Lake) -> Any:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Lake, "locked", denied)
    with caplog.at_level(logging.WARNING, "crdbexport"):
        assert {kind for kind, _ in told(tmp_path)} == {"orphan", "interrupted"}
    assert "without its lock" in caplog.text


@KINDS
def test_old_and_new_snapshots_are_whole_after_superseding(tmp_path: Path, kind: str) -> None:
    publish_old(tmp_path, kind)
    publish_new(tmp_path, kind)
    assert [each.run_id for each in manifests(tmp_path)] == ["new"]
    assert findings(tmp_path) == ()


@pytest.mark.slow
def test_hostile_records_are_no_findings(tmp_path: Path) -> None:
    for kind in SINKS:
        run = a_run()
        deliver(SINKS[kind](tmp_path / kind), run, [(stream, records(stream, 60)) for stream in run.streams])
        assert findings(tmp_path / kind) == ()
