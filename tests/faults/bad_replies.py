"""Replies that are broken, are no JSON of this API, tell of something else, or are only odd; by what is wrong."""

from __future__ import annotations

import gzip
import json

from tests.faults import behaviours as b
from tests.faults.behaviours import GZIP, HTML, RESET, body, changed, edited, field, says, split
from tests.faults.fault_server import Behaviour, answer, head, whole

# The connection, the framing or the coding breaks before the body is whole.
BROKEN: dict[str, Behaviour] = {
    "body shorter than its length": b.cut_body,
    "chunked body cut between chunks": b.cut_chunks,
    "length larger than the body": b.length_too_large,
    "length smaller than the body": b.length_too_small,
    "HTTP/1.0 body without length, cut": b.http_1_0_cut,
    "gzip cut, with a length that fits": b.gzipped(lambda packed: packed[:-9]),
    "brotli that nobody asked for": answer("200 OK", "Content-Encoding: br"),
    "reset before the headers": says(RESET),
    "reset within the body": split(0.5, RESET),
    "not HTTP at all": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "garbage with the secrets of others": says(b.BODY_CANARY + b"\r\n\r\n"),
    "status of four digits": says(whole(b"{}", status="HTTP/1.1 2000 OK")),
    "headers without an end": b.endless_head,
}
# The same, in rarer ways.
MORE_BROKEN: dict[str, Behaviour] = {
    "chunked body cut within a chunk": b.cut_within_a_chunk,
    "chunk of a negative size": b.bad_chunk_size,
    "body without length, cut": b.no_length_cut,
    "gzip without its trailer": b.gzipped(lambda packed: packed[:-8]),
    "gzip in two members": b.two_members,
    "gzip and then rubbish": b.gzipped(lambda packed: packed + b"rubbish"),
    "gzip announced, not sent": edited(lambda healthy: healthy, GZIP),
    "reset after the headers": says(head("Content-Length: 100"), RESET),
    "closed within the status line": says(b"HTTP/1.1 2"),
    "a TLS alert": says(b"\x15\x03\x01\x00\x02\x02\x46"),
    "status of two digits": says(whole(b"{}", status="HTTP/1.1 99 Low")),
    "status of a word": says(whole(b"{}", status="HTTP/1.1 OK")),
    "version of another protocol": says(whole(b"{}", status="ICY 200 OK")),
    "header without a name": answer("200 OK", ": nameless"),
    "header of a megabyte": answer("200 OK", "X-Huge: " + "x" * 2**20),
    "a hundred thousand headers": answer("200 OK", *["X: y"] * 100_000),
    "negative length": b.length("-1"),
    "length in words": b.length("many"),
    "length of forty digits": b.length("9" * 40),
    "coding of transfer that nobody knows": answer("200 OK", "Transfer-Encoding: gzip, chunked"),
    "chunked body that ends too early": b.ended_chunks_early,
    "gzip with a wrong checksum": b.gzipped(lambda packed: packed[:-8] + bytes(4) + packed[-4:]),
    "gzip twice": edited(lambda healthy: gzip.compress(gzip.compress(healthy)), "Content-Encoding: gzip, gzip"),
    "reset within the headers": says(head()[:-2], RESET),
    "closed without a word": says(),
    "null byte in a header": answer("200 OK", "X-Odd: a\0b"),
    "two different lengths": b.two_lengths,
}
# The body is whole, and no answer.
NOT_JSON: dict[str, Behaviour] = {
    "empty body": body(b""),
    "HTML with 200": body(HTML, "Content-Type: text/html; charset=utf-8"),
    "JSON and then a message": edited(lambda healthy: healthy + b"\nAn internal server error has occurred."),
    "byte order mark": edited(lambda healthy: b"\xef\xbb\xbf" + healthy),
    "lone surrogate": field("table_name", rb'"\ud800"'),
    "NaN": field("size_bytes", b"NaN"),
    "number beyond 64 bits": field("size_bytes", b"9223372036854775808"),
    "nested a hundred thousand deep": body(b.nested(100_000)),
    "an error that calls itself 200": body(b'{"error": "unauthorized", "message": "%s"}' % b.BODY_CANARY),
    "a column that does not say if it is nullable": changed(columns=[{"name": "id", "type": "UUID"}]),
}
# The same, in rarer ways.
MORE_NOT_JSON: dict[str, Behaviour] = {
    "only white space": body(b" \n"),
    "plain text with 200": body(b.BODY_CANARY),
    "JSON twice": edited(lambda healthy: healthy * 2),
    "guarded JSON": edited(lambda healthy: b")]}',\n" + healthy),
    "Latin-1": edited(lambda healthy: json.dumps(json.loads(healthy), ensure_ascii=False).encode("latin-1")),
    "overlong UTF-8": field("table_name", b'"\xc0\xaf"'),
    "surrogate as UTF-8": field("table_name", b'"\xed\xa0\x80"'),
    "Infinity": field("size_bytes", b"-Infinity"),
    "number beyond all floats": field("size_bytes", b"1e999"),
    "number with a leading zero": field("size_bytes", b"007"),
    "string of a number beyond 64 bits": field("size_bytes", b'"18446744073709551616"'),
    "string of five thousand digits": field("size_bytes", b'"' + b"9" * 5000 + b'"'),
    "nested deep in a field that nobody reads": field("extra", b.nested(100_000)),
    "a string where an object belongs": body(b'"' + b.BODY_CANARY + b'"'),
    "columns of bare names": field("columns", b'["id"]'),
    "a flag in words": changed(indexes=[{"name": "i", "columns": ["id"], "unique": "yes"}]),
    "privileges in one string": changed(grants=[{"user": "admin", "privileges": "ALL"}]),
    "a privilege that is null": changed(grants=[{"user": "admin", "privileges": [None]}]),
    "JSON that lacks its last byte": edited(lambda healthy: healthy[:-1]),
    "UTF-16": edited(
        lambda healthy: healthy.decode().encode("utf-16"), "Content-Type: application/json; charset=utf-16"
    ),
    "number of five thousand digits": field("size_bytes", b"9" * 5000),
    "half a byte": field("size_bytes", b"1.5"),
    "null": body(b"null"),
    "a list where an object belongs": body(b"[]"),
    "an object without fields": body(b"{}"),
    "columns that are null": field("columns", b"null"),
}
# It is an answer, to another question.
ANOTHERS: dict[str, Behaviour] = {
    "another schema than asked for": changed(schema_name="audit"),
    "another table than asked for": changed(table_name="accounts"),
    "another id than listed": changed(table_id="9"),
    "another database than asked for": changed(database_name="movr"),
}
# It is the answer, in a way that is seldom seen.
ODD: dict[str, Behaviour] = {
    "every connection is closed after one reply": b.closed_after,
    "chunks of one byte, with extensions and a trailer": b.byte_chunks,
    "gzip": b.gzipped(),
    "JSON called HTML": answer("200 OK", "Content-Type: text/html"),
    "cookies that nobody should keep": answer(
        "200 OK", "Set-Cookie: a=b; Max-Age=99999999999999999999; Domain=.com", "Set-Cookie: =; Expires=never, 99"
    ),
    "an invitation to another address": answer(
        "200 OK", 'Alt-Svc: h2="{elsewhere}"', "Refresh: 0; url=http://{elsewhere}/", "Link: <http://{elsewhere}/>"
    ),
}
# The same, in rarer ways.
MORE_ODD: dict[str, Behaviour] = {
    "hints before the reply": b.early_hints,
    "HTTP/1.0 without length, whole": b.http_1_0,
    "status without a reason": answer("200 "),
    "reason in Latin-1": answer("200 \xe9t\xe9 [2J"),
    "no type, and white space around": edited(lambda healthy: b"\r\n\t " + healthy + b"\n\n"),
    "a Location on a good reply": answer("200 OK", "Location: http://{elsewhere}/"),
}
