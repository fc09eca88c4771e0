"""Every kind of request of a publication fails in every way: the run is there once and whole, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from crdbexport import CrdbExportError, SinkError, SinkRefusedError
from crdbexport.testing.samples import sample_run

pytestmark = pytest.mark.slow

FAULTS = ("429", "500", "503", "reset", "lost")
# Which requests a publication makes depends on the size of the files.
OPERATIONS = {"create": 1_024, "part": 1_024, "complete": 1_024, "put": 1 << 20, "manifest": 1 << 20}
CASES = [(operation, how) for operation in OPERATIONS for how in FAULTS]
RUN = sample_run(streams=("databases", "tables"))
WHOLE = {"databases": 5, "tables": 5}


def counted(bucket: Any) -> dict[str, int]:
    return {stream: len(rows) for stream, rows in bucket.rows().items()}


@pytest.mark.parametrize(("operation", "how"), CASES)
def test_a_request_that_fails_once_is_made_good(
    operation: str, how: str, bucket: Any, proxy: Any, deliver: Any
) -> None:
    proxy.fail(operation, how, 1)
    config = bucket.config(endpoint=proxy.url, part_bytes=OPERATIONS[operation])
    deliver(config, RUN)
    assert proxy.failed == 1
    assert counted(bucket) == WHOLE
    bucket.assert_holds_only_what_manifests_name()


@pytest.mark.parametrize(("operation", "how"), CASES)
def test_a_request_that_keeps_failing_publishes_nothing_or_all_and_the_same_run_again_is_whole(
    operation: str, how: str, bucket: Any, proxy: Any, deliver: Any
) -> None:
    config = bucket.config(endpoint=proxy.url, part_bytes=OPERATIONS[operation])
    proxy.fail(operation, how, 1_000)
    try:
        deliver(config, RUN)
    except SinkError as error:
        assert proxy.failed > 1
        assert not isinstance(error, SinkRefusedError)
        assert "run the same command again" in str(error)
        assert bucket.manifests() == []
    else:
        assert how == "lost"  # It was done, and found to be.
        assert counted(bucket) == WHOLE
    proxy.mend()
    deliver(config, RUN)
    assert counted(bucket) == WHOLE
    bucket.assert_holds_only_what_manifests_name()


@pytest.mark.parametrize("how", FAULTS)
def test_a_later_run_that_cannot_commit_leaves_the_earlier_one(how: str, bucket: Any, proxy: Any, deliver: Any) -> None:
    config = bucket.config(endpoint=proxy.url, part_bytes=1 << 20)
    deliver(config, RUN)
    later = sample_run("r2", streams=("databases", "tables"))
    proxy.fail("manifest", how, 1_000)
    try:
        deliver(config, later)
    except CrdbExportError:
        [standing] = bucket.manifests()
        assert standing.run_id == "r1"
        assert counted(bucket) == WHOLE
    else:
        assert how == "lost"
    proxy.mend()
    deliver(config, later)
    [standing] = bucket.manifests()
    assert standing.run_id == "r2"
    bucket.assert_holds_only_what_manifests_name()


@pytest.mark.parametrize("operation", ["delete", "list"])
def test_clearing_up_that_fails_is_left_to_the_next_run_of_the_snapshot(
    operation: str, bucket: Any, proxy: Any, deliver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = bucket.config(endpoint=proxy.url)
    deliver(config, RUN)
    if operation == "delete":
        proxy.before("manifest", lambda: proxy.fail("delete", "500", 1_000))
        deliver(config, sample_run("r2", streams=("databases", "tables")))
        assert "the next run of this snapshot tries again" in caplog.text
        assert counted(bucket) == WHOLE
        assert len(bucket.objects()) == 5  # Two files too many, which no manifest names.
    else:
        proxy.before("put", lambda: proxy.fail("list", "500", 1_000))
        proxy.before("create", lambda: proxy.fail("list", "500", 1_000))
        with pytest.raises(SinkError, match="could not list"):
            deliver(config, sample_run("r2", streams=("databases", "tables")))
    proxy.mend()
    deliver(config, sample_run("r3", streams=("databases", "tables")))
    assert counted(bucket) == WHOLE
    bucket.assert_holds_only_what_manifests_name()


def test_the_manifest_is_written_after_every_file(bucket: Any, proxy: Any, deliver: Any) -> None:
    deliver(bucket.config(endpoint=proxy.url), RUN)
    assert proxy.seen.count("complete") == len(WHOLE)
    last_file = max(number for number, operation in enumerate(proxy.seen) if operation == "complete")
    assert proxy.seen.index("manifest") > last_file
    assert bucket.unfinished_uploads() == 0


@pytest.mark.parametrize("operation", ["create", "put", "manifest"])
def test_a_right_that_is_taken_away_meanwhile_ends_the_run_for_good(
    operation: str, bucket: Any, proxy: Any, deliver: Any
) -> None:
    config = bucket.config(endpoint=proxy.url, part_bytes=OPERATIONS[operation])
    proxy.fail(operation, "403", 1_000)
    with pytest.raises(SinkRefusedError, match=r"403 AccessDenied.*check the credentials"):
        deliver(config, RUN)
    assert bucket.objects() == {}
