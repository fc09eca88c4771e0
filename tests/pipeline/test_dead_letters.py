from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from crdbexport import Batch
from crdbexport.pipeline.dead_letters import DeadLetters


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "dead_letters" / "mine.jsonl", "mine")


@pytest.fixture
def batch(grants: Any) -> Batch:
    return Batch("database_grants", 3, grants("ann", "bob", "cid"))


def id_of(batch: Batch, grantee: str) -> str:
    (found,) = [row["record_id"] for row in batch.rows() if row["grantee"] == grantee]
    return str(found)


def test_a_refused_record_is_kept_whole_with_its_reason(letters: DeadLetters, batch: Batch) -> None:
    letters.keep(batch, [id_of(batch, "bob")], "too long")

    (letter,) = map(json.loads, letters.path.read_text().splitlines())
    assert list(letter) == ["sink", "stream", "record_id", "reason", "record"]
    assert (letter["sink"], letter["stream"], letter["reason"]) == ("mine", "database_grants", "too long")
    assert letter["record_id"] == letter["record"]["record_id"] == id_of(batch, "bob")
    assert letter["record"]["grantee"] == "bob"
    assert list(letter["record"]) == batch.data.schema.names


def test_the_rest_of_the_batch_comes_back_in_order(letters: DeadLetters, batch: Batch) -> None:
    rest = letters.keep(batch, [id_of(batch, "bob"), "an id of another batch"], "no")

    assert (rest.stream, rest.sequence) == ("database_grants", 3)
    assert [row["grantee"] for row in rest.rows()] == ["ann", "cid"]
    assert letters.counts == {"database_grants": 1}


def test_letters_of_later_batches_are_added(letters: DeadLetters, batch: Batch) -> None:
    rest = letters.keep(batch, [id_of(batch, "bob")], "one")
    letters.keep(rest, [id_of(batch, "ann")], "two")

    lines = [json.loads(line) for line in letters.path.read_text().splitlines()]
    assert [(line["record"]["grantee"], line["reason"]) for line in lines] == [("bob", "one"), ("ann", "two")]
    assert letters.counts["database_grants"] == 2


@pytest.mark.parametrize("ids", [[], ["an id of another batch"]], ids=["none", "unknown"])
def test_refusing_records_that_are_not_in_the_batch_is_refused(
    letters: DeadLetters, batch: Batch, ids: list[str]
) -> None:
    with pytest.raises(ValueError, match="not in the batch"):
        letters.keep(batch, ids, "no")
    assert not letters.path.exists()


def test_dead_letters_are_for_their_owner_only(letters: DeadLetters, batch: Batch) -> None:
    letters.keep(batch, [id_of(batch, "bob")], "no")

    assert stat.S_IMODE(letters.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(letters.path.parent.stat().st_mode) == 0o700


def test_letters_of_an_earlier_attempt_give_way(letters: DeadLetters, batch: Batch) -> None:
    letters.keep(batch, [id_of(batch, "bob")], "no")

    again = DeadLetters(letters.path, "mine")
    again.forget()

    assert not letters.path.exists()
    again.forget()
