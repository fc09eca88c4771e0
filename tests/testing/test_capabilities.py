"""What a sink declares of itself is tried: honest sinks pass, and a declaration that is not true fails."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import ClassVar

import pytest

from crdbexport import Batch, ConfigError, Receipt, RecordRefusedError, Run, SinkError, SinkRefusedError
from crdbexport.testing import Capabilities, records
from crdbexport.testing.check import Check, CheckFailedError, NotApplicableError
from crdbexport.testing.checks_safety import MORE_THAN_A_BUFFER
from crdbexport.testing.runner import CHECKS, try_check
from tests.testing.good_sinks import GoodConformance, GoodSink, PartitionedSink
from tests.testing.rude_sinks import TellsItsMaker

BY_NAME = {each.name: each for each in CHECKS}


def conformance(sink: type[GoodSink], capabilities: Capabilities, **more: object) -> GoodConformance:
    kit = type(
        sink.__name__, (GoodConformance,), {"sink": sink, "capabilities": capabilities, "crash_points": 3, **more}
    )
    made: GoodConformance = kit()
    return made


class StreamingSink(GoodSink):
    """Readers see a batch as soon as it is written."""

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.put(self.stem(), self.document())

    def abort(self, error: BaseException) -> None:
        pass


class TornSink(GoodSink):
    """Writes bit by bit where readers look."""

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.config.path.mkdir(parents=True, exist_ok=True)
        (self.config.path / f"{self.stem()}.json").write_text(json.dumps(self.document(), default=str)[:-1])

    def replaced(self) -> list[Path]:
        return []


class AtLeastOnceSink(GoodSink):
    """Every delivery is added to those before."""

    numbers: ClassVar = itertools.count()

    def commit(self) -> Receipt:
        replaced = self.replaced()
        self.put(f"{self.stem()}.{next(self.numbers)}-{os.getpid()}", self.document())
        for path in replaced:
            path.unlink()
        return self.receipt()


class RefusingSink(GoodSink):
    """Takes no long names."""

    def write(self, batch: Batch) -> None:
        refused = [row["record_id"] for row in batch.rows() if len(row.get("table_name", "")) > 60_000]
        if refused:
            raise RecordRefusedError(refused, "the name is too long")
        super().write(batch)


class ExclusiveSink(GoodSink):
    """Only one at a time holds the directory."""

    holders: ClassVar[set[Path]] = set()
    holds = False

    def open(self, run: Run) -> None:
        super().open(run)
        if self.config.path in self.holders:
            raise SinkError("somebody else publishes")
        self.holders.add(self.config.path)
        self.holds = True

    def commit(self) -> Receipt:
        receipt = super().commit()
        self.let_go()
        return receipt

    def abort(self, error: BaseException) -> None:
        self.let_go()

    def let_go(self) -> None:
        if self.holds:
            self.holders.discard(self.config.path)
        self.holds = False


class RigidSink(GoodSink):
    """Knows the fields of today, and takes no others."""

    def open(self, run: Run) -> None:
        if "tables" in run.streams and "added_later" in run.streams["tables"].names:
            raise SinkRefusedError("the stream tables has a field that its table lacks")
        super().open(run)


HONEST = {
    StreamingSink: Capabilities(transactional=False),
    AtLeastOnceSink: Capabilities(idempotent=False),
    RefusingSink: Capabilities(refuses_records=True),
    ExclusiveSink: Capabilities(concurrent=False),
    RigidSink: Capabilities(evolves=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("check", [each for each in CHECKS if not each.slow], ids=lambda check: check.name)
@pytest.mark.parametrize("sink", HONEST, ids=lambda sink: sink.__name__)
def test_an_honest_sink_passes(sink: type[GoodSink], check: Check, tmp_path: Path) -> None:
    try:
        try_check(check, conformance(sink, HONEST[sink]), tmp_path)
    except NotApplicableError as reason:
        assert str(reason)


LIES = [
    (GoodSink, Capabilities(transactional=False), "nothing_before_commit", "transactional=False is declared"),
    (GoodSink, Capabilities(idempotent=False), "same_run_twice", "idempotent=False is declared"),
    (GoodSink, Capabilities(append_only=True), "later_run_of_the_snapshot", "7 records should be there and 2 are"),
    (GoodSink, Capabilities(latest_only=True), "other_snapshots", "5 records should be there and 15 are"),
    (GoodSink, Capabilities(upsert=True), "other_snapshots", "5 records should be there and 15 are"),
    (GoodSink, Capabilities(refuses_records=True), "poison_record", "refuses_records is declared"),
    (GoodSink, Capabilities(concurrent=False), "side_by_side", "concurrent=False is declared"),
    (GoodSink, Capabilities(evolves=False), "added_field", "evolves=False is declared"),
    (GoodSink, Capabilities(files=False), "disk_full", "files=False is declared"),
    (GoodSink, Capabilities(remote=True), "without_a_network", "remote is declared"),
    (PartitionedSink, Capabilities(), "a_day_by_itself", "partitioned is not declared"),
    (TellsItsMaker, Capabilities(), "without_a_network", "remote is not declared, .* Network is unreachable"),
    (StreamingSink, Capabilities(), "nothing_before_commit", "before the commit"),
    (TornSink, Capabilities(), "nothing_before_commit", "before the commit cannot be read: JSONDecodeError"),
    (AtLeastOnceSink, Capabilities(), "same_run_twice", "5 records should be there and 10 are"),
    (RefusingSink, Capabilities(), "poison_record", "refuses_records is not declared"),
    (ExclusiveSink, Capabilities(), "side_by_side", "somebody else publishes"),
    (RigidSink, Capabilities(), "added_field", "has a field that its table lacks"),
]


@pytest.mark.parametrize(("sink", "declared", "name", "told"), LIES)
def test_a_declaration_that_is_not_true_fails(
    sink: type[GoodSink], declared: Capabilities, name: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckFailedError, match=told):
        try_check(BY_NAME[name], conformance(sink, declared), tmp_path)


def test_no_buffer_hides_what_is_published_early() -> None:
    largest_buffer = 128 * 1024
    assert len(repr(records("columns", MORE_THAN_A_BUFFER).to_pylist())) > 4 * largest_buffer


def test_a_sink_keeps_old_runs_in_one_way_only() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Capabilities(append_only=True, upsert=True)
    with pytest.raises(ValueError, match="partitioned goes with sinks that keep days"):
        Capabilities(partitioned=True, latest_only=True)


def test_an_exemption_is_told_with_its_reason(tmp_path: Path) -> None:
    kit = conformance(GoodSink, Capabilities(), not_applicable={"empty_run": "its database has no empty tables"})
    with pytest.raises(NotApplicableError, match="its database has no empty tables"):
        try_check(BY_NAME["empty_run"], kit, tmp_path)


@pytest.mark.parametrize("exemption", [{"emtpy_run": "a reason"}, {"empty_run": " "}])
def test_an_exemption_needs_the_name_of_a_check_and_a_reason(exemption: dict[str, str], tmp_path: Path) -> None:
    kit = conformance(GoodSink, Capabilities(), not_applicable=exemption)
    with pytest.raises(ConfigError, match=next(iter(exemption))):
        try_check(BY_NAME["nulls"], kit, tmp_path)
