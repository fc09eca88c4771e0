"""Sinks that change what they are given, each in one way."""

from __future__ import annotations

import unicodedata
from typing import Any

from crdbexport import Artifact, Batch, Receipt, Run, SinkError
from crdbexport.testing import sample_run
from tests.testing.good_sinks import GoodSink


class Changing(GoodSink):
    """Changes rows on their way."""

    def write(self, batch: Batch) -> None:
        rows = list(batch.rows())
        self.rows[batch.stream].extend(self.changed(row) for row in rows)

    def changed(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value(name, value) for name, value in row.items()}

    def value(self, name: str, value: Any) -> Any:
        return value


class CountsIn16Bits(Changing):
    def value(self, name: str, value: Any) -> Any:
        return value & 0xFFFF if name == "range_count" and value is not None else value


class TakesNullForZero(Changing):
    def value(self, name: str, value: Any) -> Any:
        return value or 0 if name == "size_bytes" else value


class CountsInFloats(Changing):
    def value(self, name: str, value: Any) -> Any:
        return int(float(value)) if type(value) is int and value > 2**32 else value


class TakesEmptyForNull(Changing):
    def value(self, name: str, value: Any) -> Any:
        return None if value == [] else value


class NormalisesUnicode(Changing):
    def value(self, name: str, value: Any) -> Any:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


class DropsNul(Changing):
    def value(self, name: str, value: Any) -> Any:
        return value.replace("\x00", "") if isinstance(value, str) else value


class CutsLongTexts(Changing):
    def value(self, name: str, value: Any) -> Any:
        return value[:100_000] if isinstance(value, str) else value


class CountsMilliseconds(Changing):
    def value(self, name: str, value: Any) -> Any:
        return value.replace(microsecond=value.microsecond // 1000 * 1000) if hasattr(value, "microsecond") else value


class LooksAtTheFirstRow(GoodSink):
    def write(self, batch: Batch) -> None:
        assert batch.rows()[0]["run_id"] == self.run.run_id
        super().write(batch)


class WantsDatabases(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        assert run.streams["databases" if "columns" in run.streams else "tables"]


class HoldsSixteenBitsOfRows(GoodSink):
    def document(self) -> dict[str, Any]:
        return {**super().document(), "streams": {stream: rows[:65_536] for stream, rows in self.rows.items()}}


class KnowsTheFieldsOfToday(Changing):
    def changed(self, row: dict[str, Any]) -> dict[str, Any]:
        known = {name for schema in sample_run().streams.values() for name in schema.names}
        return {name: value for name, value in row.items() if name in known}


class WantsOrder(GoodSink):
    def write(self, batch: Batch) -> None:
        names = [row.get("column_name", "") for row in batch.rows()]
        if names != sorted(names) and len(names) < 100:
            raise SinkError("out of order")
        super().write(batch)


class KnowsABatchByItsNumber(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        self.taken: set[tuple[str, int]] = set()

    def write(self, batch: Batch) -> None:
        if (batch.stream, batch.sequence) not in self.taken:
            super().write(batch)
        self.taken.add((batch.stream, batch.sequence))


class Boasts(GoodSink):
    def receipt(self) -> Receipt:
        return Receipt((Artifact("out", "tables", 2 * len(self.rows.get("tables", ())) + 1),))
