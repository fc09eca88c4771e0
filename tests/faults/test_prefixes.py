"""Every reply of both forms, cut at every byte: no beginning of an answer is ever taken for a whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from crdbexport.cluster.dialects import wire_documented, wire_native
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.replies import judged
from crdbexport.errors import UnreadableError
from crdbexport.http import Reply
from crdbexport.retry import TransientError
from tests.faults.small_world import documented, native

PAGES = {"total_results": 1, "page_size": 10, "page_num": 1}
METADATA = {"db_id": 104, "db_name": "né", "size_bytes": 7, "store_ids": [1, 2], "last_updated": "2026-01-02T03:04:05Z"}
TABLE_METADATA = {"table_id": 7, "schema_name": "public", "table_name": 'a"b', "total_data_bytes": 2**63 - 1}
GRANTS = [{"grantee": "admin", "privilege": "ALL"}]

DOCUMENTED, NATIVE = documented(), native()
SAMPLES: list[tuple[type, Any]] = [
    (wire_documented.DatabasesReply, DOCUMENTED["/databases"]),
    (wire_documented.DatabaseReply, DOCUMENTED["/databases/bank"]),
    (wire_documented.GrantsReply, DOCUMENTED["/databases/bank/grants"]),
    (wire_documented.TablesReply, DOCUMENTED["/databases/bank/tables"]),
    (wire_documented.TableReply, DOCUMENTED["/databases/bank/tables/users"]),
    (wire_native.DatabasesReply, NATIVE["/databases/"] | {"next": 2}),
    (wire_native.DatabaseReply, NATIVE["/databases/bank/"]),
    (wire_native.GrantsReply, NATIVE["/databases/bank/grants/"]),
    (wire_native.TablesReply, NATIVE["/databases/bank/tables/"]),
    (wire_native.TableReply, NATIVE["/databases/bank/tables/public.users/"]),
    (wire_native.DatabaseMetadataReply, {"results": [METADATA], "pagination_info": PAGES}),
    (wire_native.TableMetadataReply, {"results": [TABLE_METADATA], "pagination_info": PAGES}),
    (wire_native.IdGrantsReply, {"results": GRANTS, "pagination_info": PAGES, "name": "né"}),
]


@pytest.mark.parametrize(("shape", "sample"), SAMPLES, ids=[f"{s.__module__[-10:]}.{s.__name__}" for s, _ in SAMPLES])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_beginning_of_a_reply_is_taken_for_the_whole(shape: type, sample: Any, ascii_only: bool) -> None:
    body = json.dumps(sample, ensure_ascii=ascii_only).encode()
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(shape, strict=False).decode
    endpoint = Endpoint("GET", ("databases",))
    assert isinstance(judged(endpoint, Reply(200, {}, body), decode), shape)
    for length in range(len(body)):
        with pytest.raises(TransientError) as caught:
            judged(endpoint, Reply(200, {}, body[:length]), decode)
        assert isinstance(caught.value.final, UnreadableError)
        assert caught.value.final.reason == "bad_body"
