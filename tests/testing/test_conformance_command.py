"""`crdbexport plugins conformance`: the kit without pytest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport.testing import runner
from tests.testing.good_sinks import GoodConformance
from tests.testing.rude_sinks import Prints

Run = Callable[..., Any]
SOME = ("nulls", "empty_run", "uncovered_records_stay", "prints_nothing")
GOOD = "tests.testing.good_sinks:GoodConformance"


class PrintingConformance(GoodConformance):
    sink = Prints


class BrokenConformance(GoodConformance):
    def read_back(self, place: Path) -> Any:
        raise OSError("no such server")


@pytest.fixture
def some_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKS", tuple(each for each in runner.CHECKS if each.name in SOME))


@pytest.mark.usefixtures("some_checks")
def test_each_check_is_told_and_summed(run_cli: Run) -> None:
    ran = run_cli("plugins", "conformance", GOOD)
    assert (ran.exit_code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "safety     not applicable  uncovered_records_stay: upsert is not declared",
        "liveness   passed          empty_run",
        "fidelity   passed          nulls",
        "behaviour  passed          prints_nothing",
        "3 of 3 checks passed, 1 do not apply",
    ]


@pytest.mark.usefixtures("some_checks")
def test_a_check_that_fails_is_told_with_its_reason(run_cli: Run) -> None:
    ran = run_cli("plugins", "conformance", f"{__name__}:PrintingConformance")
    assert (ran.exit_code, ran.err) == (3, "")
    assert r"behaviour  failed          prints_nothing: the sink printed 'committed\n'" in ran.out
    assert "2 of 3 checks passed, 1 do not apply" in ran.out


@pytest.mark.usefixtures("some_checks")
def test_what_the_author_s_own_code_raises_is_a_failure(run_cli: Run) -> None:
    ran = run_cli("plugins", "conformance", f"{__name__}:BrokenConformance")
    assert ran.exit_code == 3
    assert "nulls: OSError: no such server" in ran.out


@pytest.mark.usefixtures("some_checks")
def test_programs_get_a_document(run_cli: Run) -> None:
    document = json.loads(run_cli("plugins", "conformance", GOOD, "--json").out)
    assert document["sink"] == GOOD
    assert document["capabilities"]["transactional"] is True
    assert {each["name"]: each["verdict"] for each in document["checks"]} == {
        "nulls": "passed",
        "empty_run": "passed",
        "uncovered_records_stay": "not applicable",
        "prints_nothing": "passed",
    }
    assert all(each["reason"] for each in document["checks"] if each["verdict"] != "passed")


@pytest.mark.slow
@pytest.mark.usefixtures("some_checks")
def test_options_and_target_reach_the_sink(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("crdbexport.sinks.parquet.ParquetSink.preflight", lambda self, run: made.append(self.config))
    ran = run_cli("plugins", "conformance", "parquet", "--target", str(tmp_path), "--option", "row_group_rows=2000")
    assert ran.exit_code == 0, ran.out
    assert {each.row_group_rows for each in made} == {2000}
    assert all(each.path.is_relative_to(tmp_path) for each in made)
    assert not list(tmp_path.glob("crdbexport-conformance-*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["parqet"], "did you mean 'parquet'?"),
        (["no_such_module:Class"], "give it as module:Class"),
        (["tests.testing.good_sinks:Missing"], "give it as module:Class"),
        (["tests.testing.good_sinks:GoodSink"], "is not a subclass of crdbexport.testing.SinkConformance"),
        (["parquet", "--option", "row_group_rows"], "is not KEY=VALUE"),
        (["parquet", "--option", "row_groups=2000"], "unknown option 'row_groups'"),
    ],
)
def test_what_cannot_be_tried_is_refused(run_cli: Run, arguments: list[str], told: str) -> None:
    ran = run_cli("plugins", "conformance", *arguments)
    assert ran.exit_code == 2
    assert told in ran.err


@pytest.mark.slow
def test_a_built_in_sink_is_tried_with_another_option(run_cli: Run) -> None:
    ran = run_cli("plugins", "conformance", "jsonl", "--option", "compression=gzip", "--json")
    assert ran.exit_code == 0
    document = json.loads(ran.out)
    assert {each["name"] for each in document["checks"] if each["verdict"] == "not applicable"} == {
        "partial_batch",
        "uncovered_records_stay",
    }
