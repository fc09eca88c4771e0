"""The run report: its published JSON Schema is the one of the code, and it adds up whatever became of the run."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from crdbexport import RunReport
from crdbexport.records import GAP_REASONS, Gap
from crdbexport.report import (
    DeliveryCounts,
    IncompleteRunError,
    ObjectCounts,
    RequestCounts,
    SinkReport,
    StreamCounts,
    versions,
)
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
from crdbexport.sandbox.world import World

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PUBLISHED = resources.files("crdbexport").joinpath("run_report.schema.json").read_text(encoding="utf-8")
HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "crdbexport run report",
    "description": (
        "The account of one run of crdbexport. It adds up: for every stream and sink, extracted = filtered + "
        "delivered + dead_lettered + undelivered; and details_wanted = details_fetched + the number of gaps. Readers "
        "must expect further properties: within a schema_version, properties are added and never removed."
    ),
}


def schema_of_the_code() -> str:
    """What `run_report.schema.json` must hold; write this there after a change of `RunReport`."""
    return json.dumps({**HEAD, **msgspec.json.schema(RunReport)}, indent=2) + "\n"


FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date-time", ValueError)
def is_an_aware_time(value: object) -> bool:
    return datetime.fromisoformat(str(value)).tzinfo is not None


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(PUBLISHED), format_checker=FORMATS)


def a_report(**changes: Any) -> RunReport:
    known: dict[str, Any] = {
        "run_id": "r1",
        "cluster": "c1",
        "logical_time": NOON,
        "dialect": "documented",
        "status": "complete",
        "exit_code": 0,
        "started_at": NOON,
        "finished_at": NOON,
        "streams": {"tables": StreamCounts(3, 1, 1)},
        "requests": RequestCounts(4, 1, 0, {"200": 4}),
        "objects": ObjectCounts(2, 2, 1),
        "gaps": (Gap(database="bank", part="tables", reason="forbidden", http_status=403),),
        "sinks": (SinkReport("lake", "parquet", "/lake", "committed", {"tables": DeliveryCounts(2)}, 10, ()),),
        "versions": versions({"mine": "1.0"}),
    }
    return RunReport(**{**known, **changes})


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert schema_of_the_code() == PUBLISHED
    jsonschema.Draft202012Validator.check_schema(json.loads(PUBLISHED))


def test_the_schema_knows_the_closed_list_of_gap_reasons() -> None:
    assert json.loads(PUBLISHED)["$defs"]["Gap"]["properties"]["reason"]["enum"] == list(GAP_REASONS)


def test_a_real_report_of_a_complete_run_fits_the_schema(
    export: Callable[..., RunReport], serve: Callable[[Sandbox], str]
) -> None:
    report = export(serve(Sandbox(World(databases=1, tables=2))))

    assert report.exit_code == 0
    assert report.sinks[0].artifacts
    validator().validate(json.loads(report.to_json()))


def test_a_real_report_with_gaps_fits_the_schema(
    export: Callable[..., RunReport], serve: Callable[[Sandbox], str]
) -> None:
    faults = Faults(rules=[Rule("/api/v2/databases/movr/grants", Status(403))])

    report = export(serve(Sandbox(World(databases=1, tables=2), faults=faults)))

    assert [gap.reason for gap in report.gaps] == ["forbidden"]
    validator().validate(json.loads(report.to_json()))


def test_the_report_of_a_run_that_could_not_begin_fits_the_schema(
    export: Callable[..., RunReport], tmp_path: Path
) -> None:
    written = tmp_path / "report.json"

    with pytest.raises(Exception, match="no sink type 'nonsense'"):
        export("http://127.0.0.1:9", sinks={"lake": {"type": "nonsense"}}, report=str(written))

    document = json.loads(written.read_text())
    validator().validate(document)
    assert (document["status"], document["exit_code"]) == ("failed", 2)


@pytest.mark.parametrize(
    "broken",
    [
        {"status": "fine"},
        {"exit_code": "0"},
        {"logical_time": "yesterday"},
        {"gaps": [{"database": "bank", "part": "tables", "reason": "bad luck"}]},
        {"sinks": [{"name": "lake"}]},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_the_schema_refuses_what_is_no_report(broken: dict[str, Any]) -> None:
    document = json.loads(a_report().to_json())
    validator().validate(document)

    assert not validator().is_valid({**document, **broken})


def test_a_report_comes_back_from_json_as_it_was() -> None:
    report = a_report(error="why")

    assert RunReport.from_json(report.to_json()) == report
    assert report.to_json().endswith(b"}\n")


def test_a_report_with_further_properties_is_still_read() -> None:
    document = {**json.loads(a_report().to_json()), "of_a_later_version": 1}

    validator().validate(document)
    assert RunReport.from_json(json.dumps(document).encode()) == a_report()


def test_raise_for_status_lets_a_complete_run_pass_and_raises_the_report_of_any_other() -> None:
    complete = a_report()
    incomplete = a_report(status="incomplete", exit_code=3, error="1 gaps")

    assert complete.raise_for_status() is complete
    with pytest.raises(IncompleteRunError, match="run r1 is incomplete") as raised:
        incomplete.raise_for_status()
    assert raised.value.report is incomplete


def test_the_versions_name_what_made_the_run() -> None:
    assert set(versions({"mine": "1.0"})) == {"mine", "crdbexport", "python", "httptools", "httpx", "pyarrow"}


def test_a_run_that_has_no_descriptor_left_can_still_tell_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("importlib.metadata.version", fail)
    assert {"crdbexport", "httptools", "httpx", "pyarrow", "python"} == versions({}).keys()
