from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.serving import ROOT
from tests.benchmarks.sinks.catalogue import SUBJECTS
from tests.benchmarks.sinks.records import reading, rows, write


def test_a_second_run_has_lost_a_hundredth_of_the_tables_and_has_as_many_new_ones(tmp_path: Path) -> None:
    keys = []
    for step in (0, 1):
        write(tmp_path / "run.arrows", step, 4_000)
        with reading(tmp_path / "run.arrows", 4_000) as data:
            keys.append(set(data.read_all().column("record_id").to_pylist()))
    assert [len(each) for each in keys] == [4_000, 4_000]
    assert len(keys[0] - keys[1]) == len(keys[1] - keys[0]) == 40


def test_a_part_of_the_records_is_the_first_ones(tmp_path: Path) -> None:
    write(tmp_path / "run.arrows", 0, 5_000)
    with reading(tmp_path / "run.arrows", 2_500) as data:
        found = data.read_all()
    names = zip(
        *(found.column(name).to_pylist() for name in ("database_name", "table_name", "column_name")), strict=True
    )
    assert list(names) == [(each[0], each[2], each[3]) for each in rows(0, 2_500)]


@pytest.mark.slow
def test_the_command_compares_both_sides_in_both_forms(tmp_path: Path) -> None:
    options = ["--records", "4000", "--rounds", "1", "--sink", "parquet", "--sink", "jsonl"]
    outputs = [f"--out={tmp_path / name}" for name in ("report.md", "report.json")]
    # With a shell in between: a child begins with its parent's peak of memory as its own, and that of pytest is large.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, sys.executable, "-m", "tests.benchmarks.sinks", *options, *outputs]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == (tmp_path / "report.md").read_text()
    [section] = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert list(section["rows"]) == ["parquet, files", "jsonl, files"]
    for way, *figures in section["rows"].values():
        assert way in {each.way for each in SUBJECTS.values()}
        assert all(figure > 0 for figure in figures)
        assert figures[2] == pytest.approx(figures[0] / figures[1])
    claims = [claim["what"] for claim in section["claims"]]
    assert len(claims) == len(section["holds"]) == 4
    assert "jsonl, files: peak memory beside a quarter's" in claims


@pytest.mark.slow
def test_a_delivery_tells_which_records_it_left(tmp_path: Path) -> None:
    write(tmp_path / "run.arrows", 0, 1_000)
    task = {"module": "parquet", "side": "ours", "directory": str(tmp_path / "lake"), "address": "", "mode": "files"}
    command = [sys.executable, "-m", "tests.benchmarks.sinks.side"]
    told = json.dumps({**task, "step": 0, "source": str(tmp_path / "run.arrows"), "count": 2_000})
    ran = subprocess.run([*command, told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["found"] == {"run-1": 1_000}
