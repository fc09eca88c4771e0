"""`crdbexport streams`: the schemas as people and as programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from crdbexport.records import STREAMS

Run = Callable[..., Any]


def test_all_streams_are_listed_with_all_their_fields(run_cli: Run) -> None:
    ran = run_cli("streams")
    assert (ran.exit_code, ran.err) == (0, "")
    for stream in STREAMS.values():
        block = ran.out.partition(f"{stream.name}: {stream.description}\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines()] == [field.name for field in stream.fields]


def test_marks_tell_keys_and_nulls(run_cli: Run) -> None:
    told = {line.split()[0]: line.split()[2:] for line in run_cli("streams", "tables").out.splitlines()[1:] if line}
    assert told["table_name"] == ["k"]
    assert told["size_bytes"] == ["?"]
    assert told["live_bytes"] == ["n?"]
    assert told["create_statement"] == ["ni?"]
    assert told["details"] == []


def test_a_program_reads_the_schema_of_a_stream(run_cli: Run) -> None:
    [document] = json.loads(run_cli("streams", "tables", "--json").out)
    assert document["key"] == ["database_name", "schema_name", "table_name"]
    assert [field["name"] for field in document["fields"]] == STREAMS["tables"].schema.names
    assert [field["nullable"] for field in document["fields"]] == [field.nullable for field in STREAMS["tables"].schema]


def test_a_program_reads_all_schemas(run_cli: Run) -> None:
    assert [each["name"] for each in json.loads(run_cli("streams", "--json").out)] == list(STREAMS)


@pytest.mark.parametrize("arguments", [["tabels"], ["tables", "--jsno"]])
def test_a_stream_that_there_is_not_is_refused(run_cli: Run, arguments: list[str]) -> None:
    ran = run_cli("streams", *arguments)
    assert (ran.exit_code, ran.out) == (2, "")
    assert "see crdbexport streams --help" in ran.err
