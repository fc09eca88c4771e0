"""Transforms at work: each batch passes them in order, and their contract is checked every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from crdbexport.errors import CrdbExportError, PluginError
from crdbexport.pipeline.batches import with_record_ids
from crdbexport.records import ENVELOPE, STREAMS, Stream
from crdbexport.sinks.base import Batch
from crdbexport.transforms.base import Transform


@dataclass(frozen=True)
class NamedTransform:
    """A transform with the name in the configuration and the plugin that it comes from."""

    name: str
    plugin: str
    transform: Transform


@dataclass
class TransformChain:
    """Applies transforms. `renamed` gathers the streams in which a key was changed on the way."""

    transforms: Sequence[NamedTransform]
    renamed: set[str] = field(default_factory=set)

    def apply(self, stream: str, cluster: str, data: pa.RecordBatch, sequence: int) -> pa.RecordBatch:
        """The batch as it shall be published; raises `PluginError` naming the transform that breaks its contract."""
        if not self.transforms:
            return data
        declared = STREAMS[stream]
        result = data
        for each in self.transforms:
            result = self._applied(each, declared, Batch(stream, sequence, result))
        if self._key_changed(declared, data, result):
            self.renamed.add(stream)
            result = with_record_ids(declared, cluster, result)
        return result

    def _applied(self, named: NamedTransform, stream: Stream, batch: Batch) -> pa.RecordBatch:
        try:
            result = named.transform.apply(batch)
            broken = _broken_contract(stream, batch.data, result)
        except CrdbExportError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"transform {named.name!r} of {named.plugin} failed on stream {stream.name}: "
                f"{type(error).__name__}: {error}",
                plugin=named.plugin,
            ) from error
        if broken:
            raise PluginError(
                f"transform {named.name!r} of {named.plugin} broke its contract on stream {stream.name}: {broken}",
                plugin=named.plugin,
            )
        return result

    @staticmethod
    def _key_changed(stream: Stream, before: pa.RecordBatch, after: pa.RecordBatch) -> bool:
        if after is before:
            return False
        kept = set(after.column("record_id").to_pylist())
        mask = pa.array([each in kept for each in before.column("record_id").to_pylist()], type=pa.bool_())
        left = before.filter(mask)
        return any(not left.column(name).equals(after.column(name)) for name in stream.key)


def _broken_contract(stream: Stream, before: pa.RecordBatch, after: object) -> str:
    """What is wrong with a transform's answer; empty if nothing is.

    The ids that the rows came in with prove that none was added, repeated or moved.
    """
    if not isinstance(after, pa.RecordBatch):
        return f"it answered {type(after).__name__}, not a pyarrow.RecordBatch"
    if not after.schema.equals(before.schema):
        return "it changed the schema"
    for name, column in zip(after.schema.names, after.columns, strict=True):
        if column.null_count and not after.schema.field(name).nullable:
            return f"it put nulls into {name}, which has none"
    ids = iter(before.column("record_id").to_pylist())
    if not all(each in ids for each in after.column("record_id").to_pylist()):
        return "it added, repeated or reordered rows, or changed record_id"
    envelope = [field.name for field in ENVELOPE if field.name != "record_id"]
    if after.num_rows and any(
        not after.column(name).equals(before.column(name).slice(0, after.num_rows)) for name in envelope
    ):
        return "it changed the envelope"
    return ""
