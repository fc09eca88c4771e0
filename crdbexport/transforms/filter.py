"""The transform `filter`: drops records by schema, table or grantee."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.selection import matches
from crdbexport.transforms.base import Transform, TransformConfig

if TYPE_CHECKING:
    from crdbexport.sinks.base import Batch


class Filter(Transform):
    """Drops records whose schema, table or grantee matches an exclude glob, or none of the include globs.

    Globs are case-sensitive shell globs. A stream that lacks the field passes untouched: `exclude_grantee`
    says nothing of `tables`, and `include_table` keeps every database. To choose databases, use `--database`,
    which also saves the requests.
    """

    class Config(TransformConfig, frozen=True, kw_only=True):
        include_schema: tuple[str, ...] = ()
        exclude_schema: tuple[str, ...] = ()
        include_table: tuple[str, ...] = ()
        exclude_table: tuple[str, ...] = ()
        include_grantee: tuple[str, ...] = ()
        exclude_grantee: tuple[str, ...] = ()

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        rules = {
            "schema_name": (config.include_schema, config.exclude_schema),
            "table_name": (config.include_table, config.exclude_table),
            "grantee": (config.include_grantee, config.exclude_grantee),
        }
        self._rules = {field: rule for field, rule in rules.items() if any(rule)}

    def apply(self, batch: Batch) -> pa.RecordBatch:
        data = batch.data
        for field, (include, exclude) in self._rules.items():
            if field in data.schema.names:
                data = data.filter(_kept(data.column(field), include, exclude))
        return data


def _kept(names: pa.StringArray, include: tuple[str, ...], exclude: tuple[str, ...]) -> pa.BooleanArray:
    """Which of `names` stay. Each distinct name is matched once: a batch has many rows and few names."""
    encoded = names.dictionary_encode()
    verdicts = [_passes(name, include, exclude) for name in encoded.dictionary.to_pylist()]
    return pc.take(pa.array(verdicts, pa.bool_()), encoded.indices)


def _passes(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if any(matches(name, pattern) for pattern in exclude):
        return False
    return not include or any(matches(name, pattern) for pattern in include)
