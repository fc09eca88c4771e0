"""Sinks that lose, double or show too early what they are given, each in one way."""

from __future__ import annotations

import logging
import os
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

from crdbexport import Batch, Outcome, Receipt, Run, SinkError
from crdbexport.errors import ClusterUnavailableError
from crdbexport.file_names import escaped
from tests.testing.good_sinks import GoodSink, PartitionedSink, UpsertSink

ALL_BATCHES = 12


class Locking(GoodSink):
    """Keeps a file for as long as it works on a run, with the number of batches that it has taken."""

    def open(self, run: Run) -> None:
        super().open(run)
        self.config.path.mkdir(parents=True, exist_ok=True)
        self.lock = self.config.path / f".{self.stem()}.lock"
        if self.lock.exists() and self.refuses(int(self.lock.read_text() or 0)):
            raise SinkError(f"{self.lock}: another process works on this run")
        self.lock.write_text("0")
        self.batches = 0

    def refuses(self, batches: int) -> bool:
        return False

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.batches += 1
        self.lock.write_text(str(self.batches))

    def commit(self) -> Receipt:
        self.lock.unlink()
        return super().commit()

    def abort(self, error: BaseException) -> None:
        super().abort(error)
        if hasattr(self, "lock"):
            self.lock.unlink(missing_ok=True)


class ShowsWhatIsWritten(GoodSink):
    taken = 0

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.taken += 1
        if self.taken == ALL_BATCHES:
            self.put(self.stem(), self.document())

    def abort(self, error: BaseException) -> None:
        if self.taken >= ALL_BATCHES:
            (self.config.path / f"{self.stem()}.json").unlink(missing_ok=True)


class KeepsAPartRatherThanNothing(GoodSink):
    def abort(self, error: BaseException) -> None:
        if isinstance(error, ClusterUnavailableError) and not list(self.config.path.glob("*.json")):
            self.publish()


class CleansUpTooMuch(GoodSink):
    def abort(self, error: BaseException) -> None:
        if hasattr(self, "run"):
            for path in self.config.path.glob(f"{escaped(self.run.cluster)}.*.json"):
                path.unlink()


class CommitsInAbort(GoodSink):
    def abort(self, error: BaseException) -> None:
        if type(error) is SinkError and hasattr(self, "run"):
            self.publish()


class RemembersWhatItCommitted(GoodSink):
    done: ClassVar[set[Path]] = set()

    def stem(self) -> str:
        stem = super().stem()
        return f"{stem}.again" if self.config.path / stem in self.done else stem

    def commit(self) -> Receipt:
        receipt = super().commit()
        self.done.add(self.config.path / super().stem())
        return receipt

    def abort(self, error: BaseException) -> None:
        super().abort(error)
        self.done.clear()


class SetsAsideWhatIsUnsure(GoodSink):
    committed = False

    def commit(self) -> Receipt:
        receipt = super().commit()
        self.committed = True
        return receipt

    def abort(self, error: BaseException) -> None:
        if self.committed:
            published = self.config.path / f"{self.stem()}.json"
            published.rename(published.with_suffix(".unsure.json"))


class TrustsALockOfTheDead(Locking):
    def refuses(self, batches: int) -> bool:
        return 0 < batches < 5


class TakesAWholeRunForOneBeingCommitted(Locking):
    def refuses(self, batches: int) -> bool:
        return batches == ALL_BATCHES


class PublishesInTwoParts(GoodSink):
    def put(self, stem: str, document: dict[str, Any]) -> None:
        try:
            for number in (0, 1):
                half = {stream: rows[number::2] for stream, rows in document["streams"].items()}
                super().put(f"{stem}.{number}", {**document, "streams": half})
        except OSError:
            (self.config.path / f"{stem}.0.json").unlink(missing_ok=True)
            raise


class RemovesBeforeItPublishes(GoodSink):
    def publish(self) -> None:
        for path in self.replaced():
            path.unlink()
        self.put(self.stem(), self.document())


class TakesTheDeadForStrangers(GoodSink):
    def document(self) -> dict[str, Any]:
        return {**super().document(), "process": os.getpid()}

    def put(self, stem: str, document: dict[str, Any]) -> None:
        published = self.config.path / f"{stem}.json"
        mine = b'"process":%d' % os.getpid()
        if published.exists() and mine not in published.read_bytes():
            stem += ".mine"
        super().put(stem, document)


class SwallowsDiskErrors(GoodSink):
    def put(self, stem: str, document: dict[str, Any]) -> None:
        try:
            super().put(stem, document)
        except OSError as error:
            logging.getLogger("twin").warning("not published: %s", error.strerror)


class KeepsHalfABatch(GoodSink):
    def write(self, batch: Batch) -> None:
        for row in batch.rows():
            self.rows[batch.stream].append(row)


class DropsWhatIsTooLong(GoodSink):
    def write(self, batch: Batch) -> None:
        self.rows[batch.stream] += [row for row in batch.rows() if len(row.get("table_name", "")) < 60_000]


class HasOneCurrentRun(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        self.config.path.mkdir(parents=True, exist_ok=True)
        self.current = self.config.path / ".current"
        self.current.write_text(self.stem())

    def put(self, stem: str, document: dict[str, Any]) -> None:
        super().put(self.current.read_text(), document)


class KeepsRunsThatHadMore(GoodSink):
    def replaces(self, other: dict[str, Any]) -> bool:
        fewer = len(self.rows.get("tables", ())) < len(other["streams"].get("tables", ()))
        return super().replaces(other) and not fewer


class KeepsTwoDays(GoodSink):
    def replaces(self, other: dict[str, Any]) -> bool:
        before = (self.run.logical_time - timedelta(days=2)).isoformat()
        return super().replaces(other) or (other["cluster"] == self.run.cluster and other["time"] <= before)


class FilesByTheDayOfReading(PartitionedSink):
    def day(self) -> date:
        return self.run.extracted_at.date()


class TakesAPrefixForTheCluster(GoodSink):
    def replaces(self, other: dict[str, Any]) -> bool:
        longer = self.run.cluster != other["cluster"] and self.run.cluster.startswith(other["cluster"])
        return super().replaces(other) or longer


class DeletesWhatItDidNotLookFor(UpsertSink):
    def gone(self, row: dict[str, Any], stream: str, outcome: Outcome) -> bool:
        return True


class FollowsNamesOutOfItsDirectory(GoodSink):
    def put(self, stem: str, document: dict[str, Any]) -> None:
        super().put(stem, document)
        if ".." in self.run.cluster:
            (self.config.path / self.run.cluster).write_text("latest")


class FlattensNames(GoodSink):
    def stem(self) -> str:
        return ".".join(re.sub(r"[^A-Za-z0-9-]", "_", part) for part in (self.run.cluster, self.run.run_id))
