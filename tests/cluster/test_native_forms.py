from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from crdbexport.cluster.dialects.detection import detected
from crdbexport.cluster.extractor import Extractor
from crdbexport.records import ON_REQUEST, STREAMS
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.base import ClusterApp
from crdbexport.sandbox.native import NativeSandbox
from crdbexport.sandbox.world import World
from crdbexport.selection import Selection

Records = dict[str, dict[tuple[Any, ...], dict[str, Any]]]

WORLD = World(6, 20)
FORMS: dict[str, Callable[[], ClusterApp]] = {
    "documented": lambda: Sandbox(WORLD),
    "v22": lambda: NativeSandbox(WORLD, generation="v22"),
    "v25": lambda: NativeSandbox(WORLD, generation="v25"),
}


@pytest.fixture
def records(serve: Callable[[ClusterApp], str], in_session: Any) -> Callable[[str], Records]:
    """The records of every stream, by key, as one form of the world tells them."""

    def run(form: str) -> Records:
        told: Records = {name: {} for name in STREAMS}

        async def work(session: Any) -> None:
            extractor = Extractor(session, await detected(session, "auto"), Selection(), tuple(STREAMS), 4)
            async with aclosing(extractor.rows()) as reading:
                async for stream, rows in reading:
                    names = [field.name for field in STREAMS[stream].own_fields]
                    for row in rows:
                        record = dict(zip(names, row, strict=True))
                        told[stream][tuple(record[each] for each in STREAMS[stream].key)] = record
            assert extractor.gaps == []

        in_session(serve(FORMS[form]()), work)
        return told

    return run


@pytest.mark.slow
def test_all_forms_give_equal_records_in_every_field_that_they_can_tell(records: Callable[[str], Records]) -> None:
    told = {form: records(form) for form in FORMS}
    compared: dict[tuple[str, str], int] = {}
    for stream in STREAMS:
        keys = set(told["documented"][stream])
        assert keys
        for form in ("v22", "v25"):
            assert set(told[form][stream]) == keys
            for other in set(FORMS) - {form}:
                for key in keys:
                    mine, theirs = told[form][stream][key], told[other][stream][key]
                    both = {name for name in mine if mine[name] is not None and theirs[name] is not None}
                    assert {name: mine[name] for name in both} == {name: theirs[name] for name in both}
                    compared.update({(stream, name): 1 for name in both})
    everything = {(each.name, field.name) for each in STREAMS.values() for field in each.own_fields}
    everything -= {(stream, name) for name, stream in ON_REQUEST.items()}
    assert everything - set(compared) == {("databases", "size_bytes"), *ONE_FORM_ALONE}


# What the form with the metadata endpoints tells and no other does.
ONE_FORM_ALONE = {
    *{("databases", name) for name in ("replicated_bytes", "stats_as_of")},
    *{("tables", name) for name in ("kind", "replicated_bytes", "replica_count", "store_ids", "stats_as_of")},
}


@pytest.mark.parametrize(
    ("form", "untold"),
    [
        ("v22", {"kind", "replicated_bytes", "replica_count", "store_ids", "stats_as_of"}),
        ("v25", set()),
    ],
)
def test_each_native_form_tells_of_tables_what_it_can(
    records: Callable[[str], Records], form: str, untold: set[str]
) -> None:
    rows = records(form)["tables"].values()
    told = next(iter(rows)).keys() - ON_REQUEST.keys()
    assert {name for name in told if all(row[name] is None for row in rows)} == untold
