"""Records that PostgreSQL cannot store: its texts hold no NUL."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

NUL = "\0"


def unstorable(data: pa.RecordBatch) -> pa.RecordBatch:
    """The records of a batch with a NUL in any text."""
    refused = None
    for column in data.columns:
        here = _with_nul(column)
        if here is not None:
            refused = here if refused is None else pc.or_(refused, here)
    return data.slice(0, 0) if refused is None else data.filter(refused)


def _with_nul(column: pa.Array) -> pa.Array | None:
    """Which values hold a NUL; None where none does."""
    if pa.types.is_string(column.type):
        found = pc.match_substring(column, NUL)
        return pc.fill_null(found, False) if pc.any(found).as_py() else None
    if not (pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type)):
        return None
    found = pc.match_substring(pc.list_flatten(column), NUL)
    if not pc.any(found).as_py():
        return None
    rows = pc.list_parent_indices(column).filter(pc.fill_null(found, False))
    return pc.is_in(pa.array(range(len(column)), rows.type), value_set=rows)
