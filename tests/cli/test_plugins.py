"""`crdbexport plugins`, and what becomes of a command when a plugin is broken."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Install = Callable[[str, str], dict[str, str]]
Start = Callable[..., "subprocess.Popen[str]"]

BROKEN = "raise RuntimeError('no\\nsuch driver')\n"
WORKING = """
from pathlib import Path

from crdbexport import Sink, SinkConfig, hookimpl


class Count(Sink):
    \"\"\"Counts records.

    Nothing else.
    \"\"\"

    class Config(SinkConfig):
        path: Path
        unit: str = "records"

    def open(self):
        self.count = 0

    def write(self, batch):
        self.count += batch.data.num_rows

    def commit(self):
        self.config.path.write_text(f"{self.count} {self.config.unit}")


@hookimpl
def crdbexport_register_sinks(register):
    register("count", Count)
"""


def test_the_built_in_plugin_is_listed_with_what_it_offers(run_cli: Run) -> None:
    ran = run_cli("plugins", "list", "--no-plugins")
    assert (ran.exit_code, ran.err) == (0, "")
    assert "builtin  crdbexport 0.1.0  crdbexport.builtin  loaded" in ran.out
    assert "  sinks: jsonl, parquet, webhook" in ran.out
    assert "  transforms: filter, mask" in ran.out


def test_a_program_reads_the_list(run_cli: Run) -> None:
    [builtin] = [each for each in json.loads(run_cli("plugins", "list", "--json").out) if each["name"] == "builtin"]
    assert builtin["state"] == "loaded"
    assert builtin["sinks"] == ["jsonl", "parquet", "webhook"]


def test_a_sink_is_shown_with_its_options_and_its_target(run_cli: Run) -> None:
    told = run_cli("plugins", "show", "parquet").out.splitlines()
    assert told[0].startswith("parquet: Publishes to ")
    assert told[1] == "  from crdbexport 0.1.0 (crdbexport.builtin)"
    options = {line.split()[0]: line for line in told[2:]}
    assert options.keys() == {"path", "compression_level", "row_group_rows", "timeout_seconds"}
    assert options["path"].endswith("required  (TARGET)")
    assert "int" in options["row_group_rows"]
    assert options["row_group_rows"].endswith("default 32768")


def test_options_are_shown_in_columns_and_in_words_of_their_own(run_cli: Run) -> None:
    told = run_cli("plugins", "show", "jsonl").out.splitlines()[2:]
    assert [line.split()[0] for line in told] == ["timeout_seconds", "path", "compression"]
    assert len({line.index(" default") for line in told if " default" in line}) == 1
    for word in ("NODEFAULT", "Literal", "Optional", "pathlib"):
        assert word not in "".join(told)


def test_a_transform_is_shown_with_its_options(run_cli: Run) -> None:
    told = run_cli("plugins", "show", "mask").out
    assert told.startswith("mask: Replaces the values of chosen fields")
    assert "fields" in told
    assert "TARGET" not in told


def test_what_is_not_installed_is_refused_with_a_suggestion(run_cli: Run) -> None:
    ran = run_cli("plugins", "show", "parqet")
    assert (ran.exit_code, ran.out) == (2, "")
    assert "no sink type 'parqet'; did you mean 'parquet'?" in ran.err


@pytest.mark.slow
def test_a_plugin_that_fails_at_import_is_named_and_hurts_nobody(
    start: Start, installed: Install, cluster: list[str], tmp_path: Path
) -> None:
    found = installed("broken", BROKEN)
    listing = start("plugins", "list", **found)
    export = start("export", *cluster, "--sink", "parquet:./lake", **found)
    out, err = export.communicate(timeout=30)
    assert (export.returncode, out) == (0, "")
    assert "warning: plugin broken (broken 1.2) is left out: RuntimeError: no such driver\n" in err
    assert len(list((tmp_path / "lake/_manifests").iterdir())) == 1
    out, err = listing.communicate(timeout=30)
    assert (listing.returncode, err) == (0, "")
    assert "broken  broken 1.2  broken_plugin  broken\n  RuntimeError: no such driver\n" in out


@pytest.mark.slow
def test_the_sink_of_a_plugin_that_fails_at_import_is_refused_with_its_cause(
    start: Start, installed: Install, cluster: list[str], app: Any
) -> None:
    found = installed("broken", BROKEN)
    asked = start("export", *cluster, "--sink", "broken:./x", **found)
    left_out = start("export", *cluster, "--sink", "broken:./x", "--no-plugins", **found)
    out, err = asked.communicate(timeout=30)
    assert (asked.returncode, out) == (2, "")
    assert "error: no sink type 'broken'; installed: " in err
    assert "plugin broken (broken 1.2) is broken: RuntimeError: no such driver" in err
    assert "Traceback" not in err
    out, err = left_out.communicate(timeout=30)
    assert (left_out.returncode, out) == (2, "")
    assert "plugin broken (broken 1.2) is blocked" in err
    assert "no such driver" not in err
    assert app.hits.total() == 0


@pytest.mark.slow
def test_the_sink_of_a_stranger_is_shown_and_works(
    start: Start, installed: Install, cluster: list[str], tmp_path: Path
) -> None:
    found = installed("counting", WORKING)
    show = start("plugins", "show", "count", **found)
    export = start(
        "export", *cluster, "--sink", "count:./n", "--sink-option", "count.unit=rows", "--report", "-", **found
    )
    out, err = show.communicate(timeout=30)
    assert (show.returncode, err) == (0, "")
    assert out.startswith("count: Counts records.\n  from counting 1.2 (counting_plugin)\n")
    out, err = export.communicate(timeout=30)
    assert export.returncode == 0, err
    records = sum(each["extracted"] for each in json.loads(out)["streams"].values())
    assert (tmp_path / "n").read_text() == f"{records} rows"
    assert records > 10
    assert json.loads(out)["versions"]["counting"] == "1.2"
