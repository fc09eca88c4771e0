"""Transforms at work: each batch passes them in order, and their contract is checked every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.errors import CrdbExportError, PluginError
from crdbexport.pipeline.batches import with_record_ids
from crdbexport.pipeline.spending import Spent
from crdbexport.records import ENVELOPE, STREAMS, Gap, Stream
from crdbexport.sinks.base import Batch
from crdbexport.transforms.base import Transform


@dataclass(frozen=True)
class NamedTransform:
    """A transform with the name in the configuration and the plugin that it comes from."""

    name: str
    plugin: str
    transform: Transform
    spent: Spent = field(default_factory=Spent, compare=False)

    @property
    def renames(self) -> bool:
        """Whether it may change keys."""
        return type(self.transform).rename is not Transform.rename


@dataclass(frozen=True)
class TransformChain:
    """Applies transforms in their order."""

    transforms: Sequence[NamedTransform]

    @property
    def renames(self) -> bool:
        """Whether names may be published otherwise than they were read."""
        return any(each.renames for each in self.transforms)

    def rename(self, field: str, name: str) -> str:
        """The name as it is published in the key field `field`."""
        for each in self.transforms:
            name = each.transform.rename(field, name)
        return name

    def rename_gap(self, gap: Gap) -> Gap:
        """The gap under the names that are published."""
        return msgspec.structs.replace(
            gap,
            database=self.rename("database_name", gap.database),
            schema=None if gap.schema is None else self.rename("schema_name", gap.schema),
            table=None if gap.table is None else self.rename("table_name", gap.table),
        )

    def apply(self, stream: str, cluster: str, data: pa.RecordBatch, sequence: int) -> pa.RecordBatch:
        """The batch as it shall be published; raises `PluginError` naming the transform that breaks its contract."""
        result = data
        for each in self.transforms:
            result = self._applied(each, STREAMS[stream], Batch(stream, sequence, result))
        return with_record_ids(STREAMS[stream], cluster, result) if self.renames else result

    def _applied(self, named: NamedTransform, stream: Stream, batch: Batch) -> pa.RecordBatch:
        try:
            with named.spent.call(batches=1):
                result = named.transform.apply(batch)
            broken = _broken_contract(named, stream, batch.data, result)
        except CrdbExportError:
            raise
        except BaseException as error:
            # No signal ends up on this thread: SystemExit, KeyboardInterrupt and their like come from the plugin.
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


def _broken_contract(named: NamedTransform, stream: Stream, before: pa.RecordBatch, after: object) -> str:
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
    return _broken_names(named, stream, before, after)


def _broken_names(named: NamedTransform, stream: Stream, before: pa.RecordBatch, after: pa.RecordBatch) -> str:
    kept = before.filter(pc.is_in(before.column("record_id"), value_set=after.column("record_id")))
    for name in stream.key:
        was, became = kept.column(name), after.column(name)
        if not named.renames and not was.equals(became):
            return f"it changed the key {name}, and does not define rename(field, name)"
        if kept.num_rows and named.transform.rename(name, was[0].as_py()) != became[0].as_py():
            return f"it changed the key {name} otherwise than its rename(field, name) says"
    return ""
