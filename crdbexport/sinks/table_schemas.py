"""The schema of a stream, and that of a table which is to take it."""

from __future__ import annotations

import pyarrow as pa

from crdbexport.errors import SinkRefusedError, shown


def fields_to_add(stream: str, declared: pa.Schema, held: pa.Schema) -> list[pa.Field]:
    """The nullable fields of the stream that its table, with the schema `held`, must gain to take it.

    Raises SinkRefusedError for a table that cannot take it.
    """
    for column in held:
        at = declared.get_field_index(column.name)
        if at >= 0 and plain_type(column.type) != plain_type(declared.field(at).type):
            what = f"has the type {plain_type(column.type)} and not {plain_type(declared.field(at).type)}"
            raise _misfit(stream, column.name, what)
        if not column.nullable and (at < 0 or declared.field(at).nullable):
            raise _misfit(stream, column.name, "takes no nulls, and the stream has some")
    lacking = [field for field in declared if field.name not in held.names]
    for field in lacking:
        if not field.nullable:
            raise _misfit(stream, field.name, "is missing")
    return lacking


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type as crdbexport declares it, for types that differ in layout only."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz in ("UTC", "+00:00", "Etc/UTC"):
        return pa.timestamp(kind.unit, "UTC")
    return kind


def shaped(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of `schema`, null where it has none."""
    if batch.schema.equals(schema):
        return batch
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _misfit(stream: str, column: str, what: str) -> SinkRefusedError:
    return SinkRefusedError(
        f"table {shown(stream)}: column {shown(column)} {what}; rename the table, and the next run makes a new one"
    )
