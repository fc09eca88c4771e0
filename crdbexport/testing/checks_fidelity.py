"""Fidelity: what is read back is what was written, in every field of every stream."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from crdbexport.sinks.base import Run
from crdbexport.testing.check import CheckFailedError, check
from crdbexport.testing.faults import HalvedSink
from crdbexport.testing.feed import Feed
from crdbexport.testing.harness import Harness
from crdbexport.testing.samples import DAY, records, sample_run, some_of_everything

INT64, INT32 = 2**63 - 1, 2**31 - 1
MANY_ROWS, BATCH_ROWS = 100_000, 2_000
FAR_NUMBER = 70_000
LARGE_CHARACTERS = 1_000_000
HARD_TEXTS = (
    "",
    " leading and trailing ",
    "null",
    "NULL",
    "\\N",
    "NaN",
    "true",
    "007",
    "1e5",
    "2026-01-31",
    "__HIVE_DEFAULT_PARTITION__",
    "\"double\" 'single' `back`",
    "comma, semicolon; tab\there",
    "line\nfeed\r\nreturn\r",
    "\u2028\u2029\x85\x1e",
    "back\\slash \\n \\u0041",
    "'; DROP TABLE users; --",
    "%s {0} ${HOME} $(id) {{ x }}",
    "../../etc/passwd",
    "\x01\x1b[31m\x7f",
    "é e\u0301 \u212b ﬁ",
    "مرحبا \u202eabc\u202c שלום",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 𝕏 \U0010fffd",
    "\ufeffmark \ufffe\uffff \ufffd",
    "straße STRASSE İi",
)
MOMENTS = (
    datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(1970, 1, 1, 0, 0, 0, 1, UTC),
    datetime(2026, 3, 29, 1, 30, 0, 123457, UTC),
    datetime(2038, 1, 19, 3, 14, 8, 1, UTC),
    datetime(2262, 4, 12, 0, 0, 0, 7, UTC),  # What counts nanoseconds in 64 bits ends on the day before.
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(1, 1, 1, 0, 0, 0, 1, UTC),
)


@check("fidelity")
def every_stream(h: Harness) -> None:
    """Every field of every stream is read back as it was written."""
    run = sample_run()
    h.must_hold(h.deliver(run, [(stream, records(stream, 3, run=run, first=FAR_NUMBER)) for stream in run.streams]))


@check("fidelity")
def nulls(h: Harness) -> None:
    """A null in any nullable field stays a null, also where the whole column is null."""
    run = sample_run()
    batches = []
    for stream, schema in run.streams.items():
        nullable = [field.name for field in schema if field.nullable]
        for first, names in enumerate([nullable, *([name] for name in nullable)]):
            nothing: dict[str, Any] = dict.fromkeys(names)
            batches.append((stream, records(stream, run=run, first=first, **nothing)))
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def integers(h: Harness) -> None:
    """Integers are exact up to the limits of their type."""
    run = sample_run()
    limits = (INT64, -INT64 - 1, 2**53 + 1, 0, -1)
    values: list[dict[str, Any]] = [{"size_bytes": each, "table_id": each, "store_ids": [each, 0]} for each in limits]
    batches = [("tables", records("tables", run=run, first=at, **each)) for at, each in enumerate(values)]
    batches.append(("columns", records("columns", run=run, ordinal_position=INT32)))
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def lists(h: Harness) -> None:
    """An empty list, a list of nulls and no list at all stay different."""
    run = sample_run()
    texts: list[list[str | None] | None] = [[], [""], ["a", "", None], [None], None, ["x,y", '"z"', "{}", "[]"]]
    numbers: list[list[int | None] | None] = [[], [None], [1, None, 1], None, list(range(1000))]
    batches = [("indexes", records("indexes", run=run, first=at, stored_columns=each)) for at, each in enumerate(texts)]
    batches += [("databases", records("databases", run=run, first=n, store_ids=each)) for n, each in enumerate(numbers)]
    batches.append(("indexes", records("indexes", run=run, first=100, column_names=[])))
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def unicode_texts(h: Harness) -> None:
    """Any text stays as it is: quotes, line ends, emoji, right to left, not normalised, and what looks like null."""
    run = sample_run()
    h.must_hold(h.deliver(run, _named(run, HARD_TEXTS)))


@check("fidelity")
def nul_in_a_text(h: Harness) -> None:
    """A text with a NUL is taken as it is, or refused as a record; it is never cut or cleaned."""
    run = sample_run()
    h.must_hold(h.deliver(run, _named(run, ("a\x00b", "\x00", "end\x00", "a"))))


@check("fidelity")
def large_values(h: Harness) -> None:
    """A text of a million characters is not cut."""
    run = sample_run()
    large = "CREATE TABLE é " + "x" * LARGE_CHARACTERS
    h.must_hold(h.deliver(run, [("tables", records("tables", 2, run=run, create_statement=large))]))


@check("fidelity")
def microseconds(h: Harness) -> None:
    """Times keep their microseconds, in the envelope too, from the year 1 to 9999."""
    tick = timedelta(microseconds=1)
    run = sample_run(logical_time=DAY + tick, extracted_at=DAY + 7 * tick)
    batches = [("tables", records("tables", run=run, first=at, stats_as_of=each)) for at, each in enumerate(MOMENTS)]
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def streams_without_rows(h: Harness) -> None:
    """A batch without rows is taken, and streams without any stay empty."""
    run = sample_run()
    batches = [("indexes", records("indexes", 0, run=run)), ("tables", records("tables", 2, run=run))]
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def some_streams(h: Harness) -> None:
    """A run of some streams only is taken."""
    h.must_hold(h.deliver(sample_run(streams=["columns", "table_grants"])))


@check("fidelity", slow=True)
def many_rows(h: Harness) -> None:
    """A hundred thousand records are all there, and each once."""
    run = sample_run()
    batches = [
        ("columns", records("columns", BATCH_ROWS, run=run, first=first)) for first in range(0, MANY_ROWS, BATCH_ROWS)
    ]
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def added_field(h: Harness) -> None:
    """A later run may have one more nullable field, and the earlier one can still be read; or such a run is refused."""
    first = h.deliver(sample_run())
    added = {"tables": pa.field("added_later", pa.string())}
    later = sample_run("r2", logical_time=DAY + timedelta(days=1), added=added)
    batches = [(stream, _with_added(stream, later)) for stream in later.streams]
    if h.capabilities.evolves:
        h.must_hold(first, h.deliver(later, batches))
        return
    if h.feed(later, batches).begin().wait().status == "committed":
        raise CheckFailedError("evolves=False is declared, and yet a run with one more field was committed")
    h.must_hold(first)


@check("fidelity")
def any_order(h: Harness) -> None:
    """The same records in another order, and batches of streams in turn, give the same."""
    run = sample_run()
    batches = [(stream, data.take(list(range(data.num_rows))[::-1])) for stream, data in some_of_everything(run)[::-1]]
    h.must_hold(h.deliver(run, batches))


@check("fidelity")
def parts_of_a_batch(h: Harness) -> None:
    """A batch that the lane writes in parts, all of them with its sequence number, is whole."""
    run = sample_run()
    h.must_hold(h.deliver(run, sink=HalvedSink(h.sink())))


@check("fidelity")
def receipt_is_true(h: Harness) -> None:
    """What the receipt tells of rows and bytes is what was published."""
    feed = h.deliver(sample_run())
    receipt = feed.lane.receipt
    for stream in feed.run.streams:
        told = [each.rows for each in receipt.artifacts if each.stream == stream and each.rows is not None]
        if told and sum(told) != len(feed.accepted(stream)):
            raise CheckFailedError(f"the receipt tells of {sum(told)} {stream}, and {_rows(feed, stream)} were written")
    sizes = [receipt.size_bytes, *(each.size_bytes or 0 for each in receipt.artifacts)]
    if any(type(size) is not int or size < 0 for size in sizes):
        raise CheckFailedError(f"the receipt tells of {min(sizes)} bytes")


def _named(run: Run, texts: tuple[str, ...]) -> list[tuple[str, pa.RecordBatch]]:
    """Records whose names and other texts are these."""
    named: list[tuple[str, pa.RecordBatch]] = []
    for at, text in enumerate(texts):
        named.append(("tables", records("tables", run=run, first=at, schema_name=text, create_statement=text)))
        listed: dict[str, Any] = {"index_name": text, "column_names": [text, "id"]}
        named.append(("indexes", records("indexes", run=run, **listed)))
    return named


def _with_added(stream: str, run: Run) -> pa.RecordBatch:
    more = {"added_later": "new"} if stream == "tables" else {}
    return records(stream, 2, run=run, first=3, **more)


def _rows(feed: Feed, stream: str) -> int:
    return len(feed.accepted(stream))


CHECKS = (
    every_stream,
    nulls,
    integers,
    lists,
    unicode_texts,
    nul_in_a_text,
    large_values,
    microseconds,
    streams_without_rows,
    some_streams,
    many_rows,
    added_field,
    any_order,
    parts_of_a_batch,
    receipt_is_true,
)
