"""Where an attempt at a run puts its objects, and how it knows those of other attempts at the same snapshot.

    <stream>/date=<day>/<cluster>.<run_id>.<attempt>.parquet
    _manifests/<cluster>.<logical time>.json

An attempt is told by 16 hexadecimal digits: eight of its snapshot, for a day may have many, and eight of its own, so
that no two attempts ever write the same object.
"""

from __future__ import annotations

import secrets
from datetime import UTC
from hashlib import blake2b

from crdbexport import Run
from crdbexport.file_names import escaped, file_stem, snapshot_stem
from crdbexport.records import STREAMS

MANIFESTS = "_manifests"
_HALF_BYTES = 4


class Attempt:
    """The paths below the prefix of one attempt at a run. Names that begin with `_` are not those of streams."""

    def __init__(self, run: Run, suffix: str) -> None:
        moment = run.logical_time.astimezone(UTC)
        self._cluster = escaped(run.cluster)
        self._snapshot = blake2b(moment.isoformat().encode(), digest_size=_HALF_BYTES).hexdigest()
        self._id = f"{self._snapshot}{secrets.token_hex(_HALF_BYTES)}"
        self._name = f"{file_stem(run.cluster, run.run_id)}.{self._id}{suffix}"
        self._day = f"date={moment.date().isoformat()}"
        self.manifest = f"{MANIFESTS}/{snapshot_stem(run.cluster, run.logical_time)}.json"
        self.probe = f"_staging/probe.{self._id}"

    @property
    def directories(self) -> tuple[str, ...]:
        """Where the files of any attempt at this snapshot lie, whatever streams it exports."""
        return tuple(f"{stream}/{self._day}" for stream in STREAMS)

    def file(self, stream: str) -> str:
        return f"{stream}/{self._day}/{self._name}"

    def is_rival(self, path: str) -> bool:
        """Whether a file in one of the directories belongs to another attempt at this snapshot."""
        cluster, _, attempt, *_ = [*path.rpartition("/")[2].split("."), "", "", ""]
        same_snapshot = cluster == self._cluster and attempt.startswith(self._snapshot)
        return same_snapshot and len(attempt) == len(self._id) and attempt != self._id
