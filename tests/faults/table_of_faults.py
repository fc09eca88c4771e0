"""The table of faults: what the server does, where, and what has to become of the run."""

from __future__ import annotations

from itertools import product
from typing import Any

from tests.faults import behaviours as b
from tests.faults.bad_replies import ANOTHERS, BROKEN, MORE_BROKEN, MORE_NOT_JSON, MORE_ODD, NOT_JSON, ODD
from tests.faults.behaviours import (
    HTML,
    KEEP,
    RESET,
    STALL,
    body,
    changed,
    edited,
    refuses,
    retry_after,
    says,
    split,
)
from tests.faults.fault import (
    ANY,
    ATTEMPTS,
    HEALTHY,
    LIST,
    OTHER_USERS,
    USERS,
    Fault,
    befalls,
    ends,
    harmless,
    passes,
    rarely,
    stays,
    tells,
)
from tests.faults.fault_server import Rule, head, whole
from tests.faults.small_world import DATABASES
from tests.faults.small_world import TABLES as TABLES_OF_EACH

HEALTH, LOGIN, LOGOUT = "/health", "/login/", "/logout/"
BANK, GRANTS, TABLES = "/databases/bank", "/databases/bank/grants", "/databases/bank/tables"
BELOW, DETAILS = "/databases/.*", "/databases/[a-z]+/tables/.+"
NATIVE_TABLES, NATIVE_USERS = "/databases/bank/tables/", "/databases/bank/tables/public.users/"
# Health, login, the list five times, logout; and what a login and health of their own take.
AT_LIST, AT_HEALTH, AT_LOGIN = 3 + ATTEMPTS, ATTEMPTS, 1 + ATTEMPTS
SLOW: dict[str, Any] = {"timeout": 0.25}

HOSTILE_WAITS = (
    "-5", "nan", "inf", "1e9", "²", "", "9" * 400, "1_000", "0x10", "999999999", "soon", "1.5", "+3", "\t3 ",
    "Thu, 99 Jan 1970", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359",
    "Sat, 01 Jan 2000 00:00:00 -0000",
)  # fmt: skip
DIFFERENT_HOSTS = (
    "http://{elsewhere}/api/v2/",
    "https://{elsewhere}/api/v2/",
    "//{elsewhere}/",
    "http://user:pass@{elsewhere}/x",
)
RARE_STATUSES = ("206", "400", "402", "405", "409", "413", "414", "418", "431", "451", "505", "599", "999")
# Where a redirect may come, and how many requests a run has sent by then.
CROSSROADS = {HEALTH: 1, LOGIN: 2, LIST: 4, USERS: HEALTHY["documented"]}


def once_only(status: str) -> Fault:
    return stays(f"{status} is not tried again", refuses(f"{status} No"), "server_error", tried=1)


def redirect(status: int, target: str, at: str) -> Fault:
    does = refuses(f"{status} Go", f"Location: {target}")
    return ends(f"{status} at {at} to {target[:20]}", does, 4, at, requests=CROSSROADS[at])


def hostile_waits() -> Fault:
    """Three values at each of the six tables."""
    waits = iter(retry_after(value.encode().decode("latin-1")) for value in HOSTILE_WAITS)
    tables = [f"/databases/{database}/tables/{table}" for database in DATABASES for table in TABLES_OF_EACH]
    rules = tuple(Rule(each, [next(waits), next(waits), next(waits)]) for each in tables)
    return Fault("hostile Retry-After headers", rules, 0, {}, HEALTHY["documented"] + 18, strikes=18)


PASSING = [
    hostile_waits(),
    passes(
        "Retry-After as a date, of a server whose clock is wrong",
        retry_after("Wed, 01 Jan 1930 00:00:01 GMT", date="Wed, 01 Jan 1930 00:00:00 GMT"),
    ),
    passes("every request fails once with 503", refuses("503 No"), "/.*(?<!/logout/)", more=15),
    passes("the session is gone, once", refuses("401 No"), more=2),
    Fault("the session is gone for everybody", (Rule(BANK, [None], revokes=True),), 0, {}, HEALTHY["documented"] + 10),
    passes("reset at the list of databases", split(0.5, RESET), LIST),
    passes("slow body, a byte now and then", b.slow_body, more=3, **SLOW),
    passes("silence", says(STALL), more=3, **SLOW),
    passes("hints for ever", b.endless_hints, more=3, **SLOW),
    passes("health is hidden by a proxy", refuses("404 No"), HEALTH, more=0),
    passes("native: 500 at a table, once", refuses("500 No"), NATIVE_USERS, form="native"),
    passes("native: reset at a database", says(RESET), "/databases/bank/", form="native"),
    *rarely(
        passes("reset at health", says(RESET), HEALTH),
        passes("login answers 503", refuses("503 No"), LOGIN),
        passes("the reply of the login is cut", b.cut_body, LOGIN),
        passes("slow headers", b.slow_head, more=3, **SLOW),
        passes("silence after the headers", says(head("Content-Length: 10"), STALL), more=3, **SLOW),
        passes("silence within the body", split(0.5, STALL), more=3, **SLOW),
        passes("login says nothing, once", says(STALL), LOGIN, more=3, **SLOW),
        passes("429 with a Retry-After of no time", retry_after("0", "429 Too Many")),
        passes("login answers 429", retry_after("1", "429 No"), LOGIN),
        passes("login answers HTML, once", body(HTML), LOGIN),
        passes("every request is reset once", says(RESET), "/.*(?<!/logout/)", more=15),
        passes("reset as the connection is made", says(RESET), "connection", more=8),
    ),
]
HARMLESS = [
    *(harmless(name, does, "/databases.*") for name, does in ODD.items()),
    *rarely(*(harmless(name, does, "/databases.*") for name, does in MORE_ODD.items())),
    passes("extra bytes after a reply", b.extra_bytes, concurrency=1),
    *(harmless(f"logout answers {status}", refuses(status), LOGOUT) for status in ("401 No", "500 No")),
    harmless("logout is reset", says(RESET), LOGOUT),
    harmless("logout is a redirect", refuses("307 Go", "Location: http://{elsewhere}/"), LOGOUT),
    harmless("logout says nothing", says(STALL), LOGOUT, **SLOW),
    *rarely(
        harmless("logout answers HTML", body(HTML), LOGOUT),
        harmless("the body comes in pieces", split(0.5, 0.01), BELOW),
    ),
]
LASTING = [
    *(befalls(name, does, more=ATTEMPTS) for name, does in BROKEN.items()),
    *rarely(*(befalls(name, does, more=ATTEMPTS) for name, does in MORE_BROKEN.items())),
    *(befalls(name, does) for name, does in NOT_JSON.items()),
    *rarely(*(befalls(name, does) for name, does in MORE_NOT_JSON.items())),
    *(stays(name, does, "ambiguous", tried=1) for name, does in ANOTHERS.items() if "schema" in name),
    *rarely(*(stays(name, does, "ambiguous", tried=1) for name, does in ANOTHERS.items() if "schema" not in name)),
    *(befalls(status, refuses(status), "server_error") for status in ("429 No", "500 No", "503 No")),
    *rarely(befalls("502 No", refuses("502 No"), "server_error")),
    befalls(
        "504 in HTML", says(whole(HTML, "Content-Type: text/html", status="HTTP/1.1 504 No"), KEEP), "server_error"
    ),
    *(once_only(status) for status in ("204", "410", "501")),
    *rarely(*(once_only(status) for status in RARE_STATUSES)),
    stays("403 at a table", refuses("403 No"), "forbidden", tried=1),
    stays("403 at the grants of a database", refuses("403 No"), "forbidden", GRANTS, tried=1),
    stays("404 with a body of the API: dropped meanwhile", refuses("404 No"), "not_found", tried=1, exit_code=0),
    stays("404 of the router: no such path", refuses("404 No", body=b"404 page not found\n"), "unaddressable", tried=1),
    stays("a database vanishes", refuses("404 No"), "not_found", f"{BANK}.*", tried=1, gaps=3, exit_code=0),
    stays("all details forbidden", refuses("403 No"), "forbidden", DETAILS, tried=1, gaps=6),
    stays("allowed gaps", refuses("403 No"), "forbidden", tried=1, exit_code=0, allow_gaps=("forbidden",)),
    stays("native: 500 at a table", refuses("500 No"), "server_error", NATIVE_USERS, tried=1 + ATTEMPTS, form="native"),
    *(
        stays(f"native: {name}", does, "pagination_loop", NATIVE_TABLES, form="native")
        for name, does in {
            "next never advances": changed(next=1),
            "next goes back": changed(next=-7),
            "next as a string": changed(next="2"),
            "next at the end of all numbers": changed(next=2**63 - 1),
        }.items()
    ),
    stays(
        "native: a name that is no name",
        changed(table_names=["public.accounts", "public.orders", "public.users", "x"]),
        "bad_body",
        NATIVE_TABLES,
        tried=1,
        form="native",
    ),
    *rarely(
        stays("404 in HTML", says(whole(HTML, status="HTTP/1.1 404 No"), KEEP), "not_found", tried=1, exit_code=0),
        stays("a byte now and then, for ever", b.slow_body, "timeout", timeout=0.12),
        stays("a gzip bomb", b.bomb(31, "gzip"), "too_large", tried=1),
        stays("a deflate bomb", b.bomb(15, "deflate"), "bad_body"),
        stays("a body without an end", b.endless_body, "too_large", tried=1),
        stays("list of tables that is null", body(b'{"tables": null}'), "bad_body", TABLES),
        stays("native: next beyond 64 bits", changed(next=2**63), "bad_body", NATIVE_TABLES, form="native"),
        stays("list of tables without a schema", body(b'{"tables": [{"name": "users"}]}'), "bad_body", TABLES),
        stays("silence, for ever", says(STALL), "timeout", timeout=0.12),
        stays("403 at a list of tables", refuses("403 No"), "forbidden", TABLES, tried=1),
    ),
]
ENDING = [
    *(ends(f"{status} at the list", refuses(status), 5, requests=AT_LIST) for status in ("429 No", "500 No", "503 No")),
    ends("silence at the list", says(STALL), 5, requests=AT_LIST, timeout=0.12),
    ends("resets at the list", says(RESET), 5, requests=AT_LIST),
    ends("HTML at the list", body(HTML), 4, requests=AT_LIST),
    ends("403 at the list", refuses("403 No"), 4, requests=4),
    ends("404 at the list", refuses("404 No"), 4, requests=4),
    ends("404 of the router at the list", refuses("404 No", body=b"404 page not found\n"), 4, requests=5),
    ends("410 at the list", refuses("410 Gone"), 4, requests=4),
    ends("virtual cluster", refuses("501 No", body=b"Not Available on Tenants\n"), 4, requests=4),
    ends("the list is a list", body(b"[]"), 4, requests=AT_LIST),
    ends("the list is null", body(b'{"databases": null}'), 4, requests=AT_LIST),
    ends("the list has numbers", body(b'{"databases": [1, 2]}'), 4, requests=AT_LIST),
    ends("the list mixes names and objects", body(b'{"databases": [{"name": "bank"}, "movr"]}'), 4, requests=5),
    ends(
        "403 everywhere below the list",
        refuses("403 No"),
        gaps={"forbidden": 6},
        exit_code=4,
        at=BELOW,
        requests=HEALTHY["documented"],
    ),
    ends(
        "503 everywhere below the list",
        refuses("503 No"),
        gaps={"server_error": 6},
        exit_code=5,
        at=BELOW,
        requests=6 + 6 * ATTEMPTS,
    ),
    ends("503 everywhere", refuses("503 No", "Retry-After: 1"), 5, ANY, requests=AT_HEALTH),
    ends("429 everywhere", refuses("429 No", "Retry-After: 999999"), 5, ANY, requests=AT_HEALTH),
    ends("reset everywhere", says(RESET), 5, "connection", requests=0),
    ends("closed everywhere", says(), 5, ANY, requests=AT_HEALTH),
    ends("a captive portal", body(HTML, "Content-Type: text/html"), 4, ANY, requests=1),
    ends("a captive portal that redirects", refuses("302 Go", "Location: http://{elsewhere}/"), 4, ANY, requests=1),
    ends("every session is refused", refuses("401 No"), 4, LIST, requests=6),
    ends("every session is refused by a table", refuses("401 No"), 4, requests=HEALTHY["documented"] + 2),
    Fault(
        "the session is gone a second time",
        (Rule(BANK, [None], revokes=True), Rule(OTHER_USERS, [None], revokes=True)),
        4,
        {},
        HEALTHY["documented"] + 10,
        settings={"concurrency": 1},
        strikes=2,
    ),
    ends("login answers 401", refuses("401 No"), 4, LOGIN, requests=2),
    ends("login answers 401 in HTML", says(whole(HTML, status="HTTP/1.1 401 No"), KEEP), 4, LOGIN, requests=2),
    ends("login answers 400", refuses("400 No"), 4, LOGIN, requests=2),
    ends("login answers 403", refuses("403 No"), 4, LOGIN, requests=2),
    ends("login answers 404", refuses("404 No"), 4, LOGIN, requests=2),
    ends("login answers 429 for ever", refuses("429 No", "Retry-After: 1"), 5, LOGIN, requests=AT_LOGIN),
    ends("login answers 500 for ever", refuses("500 No"), 5, LOGIN, requests=AT_LOGIN),
    ends("login says nothing for ever", says(STALL), 5, LOGIN, requests=AT_LOGIN, timeout=0.12),
    ends("login answers HTML", body(HTML), 4, LOGIN, requests=AT_LOGIN),
    ends("login without a session", body(b"{}"), 4, LOGIN, requests=AT_LOGIN),
    ends("login with an empty session", body(b'{"session": ""}'), 4, LOGIN, requests=AT_LOGIN),
    ends("login with a session of two lines", body(rb'{"session": "a\r\nX-Evil: b"}'), 4, LOGIN, requests=AT_LOGIN),
    ends("login with a session that is a number", body(b'{"session": 7}'), 4, LOGIN, requests=AT_LOGIN),
    ends("login with a session of another server", body(b'{"session": "foreign"}'), 4, LOGIN, requests=6),
    *(
        redirect(status, target, at)
        for status, target, at in zip((301, 302, 307, 308), DIFFERENT_HOSTS, CROSSROADS, strict=True)
    ),
    *rarely(
        *(
            redirect(status, "https://a:b@{elsewhere}/", at)
            for status, at in product((301, 302, 303, 307, 308), CROSSROADS)
        )
    ),
    ends("redirect to itself", refuses("301 Go", "Location: /api/v2/databases"), 4, requests=4),
    ends("redirect to nowhere", refuses("302 Go"), 4, requests=4),
    *(
        redirect(302, target, LIST)
        for target in ("http://[::1", "http://xn--/", "javascript:1", "http://" + "a" * 70_000)
    ),
    ends("304", refuses("304 Same"), 4, requests=4),
    ends("native: 500 at the list", refuses("500 No"), 5, "/databases/", requests=AT_LIST + 1, form="native"),
    ends(
        "native: virtual cluster",
        refuses("501 No", body=b"Not Available on Tenants\n"),
        4,
        "/databases/",
        requests=5,
        form="native",
    ),
    ends("native: the list never ends", changed(next=1), 4, "/databases/", requests=AT_LIST + 1, form="native"),
    *rarely(
        ends("a gzip bomb at the list", b.bomb(31, "gzip"), 4, requests=4),
        ends(
            "404 everywhere below the list",
            refuses("404 No"),
            gaps={"not_found": 6},
            exit_code=4,
            at=BELOW,
            requests=HEALTHY["documented"],
        ),
        ends(
            "HTML everywhere below the list",
            body(HTML),
            gaps={"bad_body": 6},
            exit_code=4,
            at=BELOW,
            requests=6 + 6 * ATTEMPTS,
        ),
    ),
]
TELLING = [
    tells("fields that nobody knows", changed(version=27, extra={"deep": [1, {"x": None}]})),
    tells("no sizes and ids at all", changed(size_bytes=None, range_count=None, table_id=None)),
    tells("keys that come twice: the last one counts", edited(lambda healthy: b'{"size_bytes": 7, ' + healthy[1:])),
    tells("empty lists", changed(columns=[], indexes=[], grants=[])),
    tells("no table at all", body(b'{"tables": []}'), TABLES),
    tells("no grant at all", body(b'{"grants": []}'), GRANTS),
    tells("no database at all", body(b'{"databases": []}'), LIST),
    tells("native: nothing but an empty object", body(b"{}"), NATIVE_TABLES, form="native"),
    *rarely(
        tells("privileges named twice", changed(grants=[{"user": "a", "privileges": ["X", "X"]}] * 2)),
        tells("native: lists that are null", changed(grants=[], columns=[], indexes=[]), NATIVE_USERS, form="native"),
    ),
]

FAULTS = [*PASSING, *HARMLESS, *LASTING, *ENDING, *TELLING]
