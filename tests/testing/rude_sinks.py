"""Sinks that tell secrets, or are bad guests in their process, each in one way."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal

from crdbexport import Artifact, Batch, Receipt, Run, SinkConfig, SinkError
from crdbexport.pipeline.lane import LaneCutOffError
from crdbexport.testing import records
from tests.testing.good_sinks import GoodSink


class PublishesItsEnvironment(GoodSink):
    def document(self) -> dict[str, Any]:
        return {**super().document(), "environment": dict(os.environ)}


class LogsItsToken(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        logging.getLogger("twin").debug("opened with %s", self.config)


class RaisesItsToken(GoodSink):
    def write(self, batch: Batch) -> None:
        if "run_id" not in batch.data.schema.names:
            raise SinkError("the batch has too few fields") from KeyError(self.config)
        super().write(batch)


class ShowsItsToken(GoodSink):
    def __repr__(self) -> str:
        return f"ShowsItsToken({self.config})"


class TellsItsTokenInTheReceipt(GoodSink):
    def receipt(self) -> Receipt:
        return Receipt((Artifact(f"{self.config.path}?token={self.config.token}"),))


class CommitsWhatItHasWhenCutOff(GoodSink):
    def abort(self, error: BaseException) -> None:
        if isinstance(error, LaneCutOffError):
            self.publish()


class WantsTheMainThread(GoodSink):
    def __init__(self, config: GoodSink.Config) -> None:
        super().__init__(config)
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


class ProbesVisibly(GoodSink):
    def preflight(self, run: Run) -> None:
        self.run = run
        stream = next(iter(run.streams))
        self.rows = {stream: records(stream, run=run).to_pylist()}
        self.put("probe", self.document())

    def open(self, run: Run) -> None:
        (self.config.path / "probe.json").unlink(missing_ok=True)
        super().open(run)


class TakesUnknownOptions(GoodSink):
    class Config(SinkConfig, frozen=True, kw_only=True, forbid_unknown_fields=False):
        path: Path
        token: str = ""
        compression: Literal["none"] = "none"


class TakesAnyType(GoodSink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Any
        token: str = ""
        compression: Literal["none"] = "none"


class TakesAnyValue(GoodSink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        token: str = ""
        compression: str = "none"


class Prints(GoodSink):
    def commit(self) -> Receipt:
        print("committed")
        return super().commit()


class TellsItsMaker(GoodSink):
    def commit(self) -> Receipt:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as home:
            home.connect(("127.0.0.1", 9))
            home.send(b"committed")
        return super().commit()


class ChangesTheEnvironment(GoodSink):
    numbers: ClassVar[Iterator[int]] = count()

    def open(self, run: Run) -> None:
        super().open(run)
        os.environ["TWIN_RUNS"] = str(next(self.numbers))


class SilencesWarnings(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        warnings.simplefilter("ignore", type("Unwanted", (UserWarning,), {}))


class LeavesAThread(GoodSink):
    over: ClassVar[threading.Event] = threading.Event()

    def open(self, run: Run) -> None:
        super().open(run)
        threading.Thread(target=self.over.wait, daemon=True).start()


class LeavesAFileOpen(GoodSink):
    opened: ClassVar[list[int]] = []

    def open(self, run: Run) -> None:
        super().open(run)
        self.opened.append(os.open(os.devnull, os.O_RDONLY))


class LeavesATemporaryFile(GoodSink):
    def open(self, run: Run) -> None:
        super().open(run)
        os.close(tempfile.mkstemp(prefix="twin-")[0])
