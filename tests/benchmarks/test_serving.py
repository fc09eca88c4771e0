from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RunReport
from tests.benchmarks import serving
from tests.benchmarks.bystander import Bystander, p99
from tests.benchmarks.serving import MissingServerError, nginx_configuration, nginx_program, write_files
from tests.benchmarks.slow_server import BYSTANDER, TALLY, Behaviour, Service, arguments, listening
from tests.benchmarks.workload import COLUMNS, Workload

SMALL = Workload(databases=4, tables=9)
A_TABLE = "/api/v2/databases/app_002/tables/orders"


def answer(path: str, workload: Workload = SMALL) -> Any:
    return json.loads(workload.answer(path) or b"null")


def with_server(
    behaviour: Behaviour, use: Callable[[int], Awaitable[Any]], clock: Callable[[], float] = time.monotonic
) -> tuple[Any, Service]:
    """What `use` makes of a slow server's port, and the service behind it."""
    service = Service(SMALL, behaviour, clock)

    async def run() -> Any:
        server, port = await listening(service)
        async with server:
            return await use(port)

    return asyncio.run(run()), service


async def ask(port: int, path: str) -> bytes:
    """The whole response, b"" where the connection was lost."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return head + await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


def asking(*paths: str) -> Callable[[int], Awaitable[list[bytes]]]:
    """Asks for the paths side by side."""
    return lambda port: asyncio.gather(*(ask(port, path) for path in paths))


def test_the_full_workload_has_ten_thousand_one_hundred_and_fifty_one_answers() -> None:
    workload = Workload()
    assert sum(1 for _ in workload.paths()) == 10_151
    assert workload.tables == workload.rows["tables"] == 10_000
    assert workload.rows["columns"] == 120_000


def test_every_path_has_an_answer_and_no_other_has() -> None:
    paths = list(SMALL.paths())
    assert len(set(paths)) == len(paths) == 1 + 4 * (3 + 9)
    assert all(answer(path) for path in paths)
    for path in ("/api/v2/databases/app_004", f"{A_TABLE}_9999", f"{A_TABLE}/x", "/api/v2/nodes", "/"):
        assert SMALL.answer(path) is None


def test_every_table_has_twelve_columns_and_indexes_over_these() -> None:
    for path in SMALL.paths():
        if re.search("/tables/.", path):
            columns = {each["name"] for each in answer(path)["columns"]}
            assert len(columns) == COLUMNS
            assert all(columns.issuperset(index["columns"]) for index in answer(path)["indexes"])


def test_lists_and_details_name_the_same_tables_by_the_same_unique_ids() -> None:
    seen = set()
    for database in SMALL.databases:
        for listed in answer(f"/api/v2/databases/{database}/tables")["tables"]:
            details = answer(f"/api/v2/databases/{database}/tables/{listed['name']}")
            named = {"table_name": listed["name"], "table_id": listed["table_id"], "database_name": database}
            assert details.items() >= named.items()
            assert details["schema_name"] == listed["schema_name"]
            seen.add(listed["table_id"])
    assert len(seen) == SMALL.tables


@pytest.mark.slow
def test_an_export_comes_out_with_the_rows_that_the_workload_promises(export: Callable[..., RunReport]) -> None:
    async def run(port: int) -> RunReport:
        return await asyncio.to_thread(export, f"http://127.0.0.1:{port}")

    report, service = with_server(Behaviour(), run)
    assert report.exit_code == 0
    assert {name: counts.extracted for name, counts in report.streams.items()} == SMALL.rows
    assert service.tally.requests == len(service.tally.answered_at) == len(list(SMALL.paths()))


def test_files_hold_what_the_slow_server_answers(tmp_path: Path) -> None:
    write_files(SMALL, tmp_path)
    files = {f"/{file.relative_to(tmp_path).with_suffix('')}": file.read_bytes() for file in tmp_path.rglob("*.json")}
    assert files == {path: SMALL.answer(path) for path in SMALL.paths()}


def test_nginx_is_told_to_write_nowhere_else(tmp_path: Path) -> None:
    told = nginx_configuration(tmp_path, tmp_path / "answers", 1234)
    places = re.findall(r"(?:pid|error_log|root|_temp_path) ([^;]+);", told)
    assert len(places) == 8
    assert all(Path(place).is_relative_to(tmp_path) for place in places)
    assert "listen 127.0.0.1:1234;" in told


def test_a_missing_nginx_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(serving, "SYSTEM_DIRECTORIES", str(tmp_path))
    with pytest.raises(MissingServerError, match="apt-get install nginx-light"):
        nginx_program()
    (tmp_path / "nginx").touch(mode=0o755)
    assert nginx_program() == str(tmp_path / "nginx")


def test_latency_is_flat_up_to_the_knee_and_multiplies_above_it() -> None:
    server = Behaviour(latency_seconds=0.02, knee=8)
    assert [server.delay(number) for number in (1, 8)] == [0.02, 0.02]
    assert server.delay(9) == pytest.approx(0.022)
    assert server.delay(32) > 9 * server.delay(8)
    # What it serves in a second is at its most a little above the knee, and falls from there.
    served = {number: number / server.delay(number) for number in range(1, 33)}
    assert max(served, key=served.__getitem__) in range(8, 13)
    assert served[8] >= 0.95 * max(served.values())


def test_answers_take_as_long_as_was_said() -> None:
    async def run(port: int) -> float:
        begun = asyncio.get_running_loop().time()
        await asking(*[A_TABLE] * 5)(port)
        return asyncio.get_running_loop().time() - begun

    taken, service = with_server(Behaviour(latency_seconds=0.05), run)
    assert 0.05 <= taken < 5 * 0.05
    assert service.tally.most_in_flight == 5
    assert service.tally.in_flight == 0


def test_what_is_above_the_rate_is_told_to_come_later() -> None:
    replies, service = with_server(Behaviour(max_rps=3), asking(*[A_TABLE] * 5), clock=lambda: 7.5)
    statuses = sorted(reply.split(b" ")[1] for reply in replies)
    assert statuses == [b"200"] * 3 + [b"429"] * 2
    assert all(b"Retry-After: 1\r\n" in reply for reply in replies if b" 429 " in reply)
    assert service.tally.summary().items() >= {"requests": 5, "answered": 3, "throttled": 2}.items()


def test_the_rate_is_that_of_each_second() -> None:
    times = iter((7.1, 7.9, 8.0, 8.5, 9.9))
    service = Service(SMALL, Behaviour(max_rps=1), lambda: next(times))
    assert [service.throttles() for _ in range(5)] == [False, True, False, True, False]


def test_every_so_many_th_request_loses_its_connection() -> None:
    replies, service = with_server(Behaviour(drop_every=3), asking(*[A_TABLE] * 7))
    assert replies.count(b"") == service.tally.dropped == 2
    assert len(service.tally.answered_at) == 5


def test_only_requests_for_data_are_tallied() -> None:
    async def run(port: int) -> dict[str, float]:
        await asking("/api/v2/health", BYSTANDER, A_TABLE, A_TABLE)(port)
        told: dict[str, float] = json.loads((await ask(port, TALLY)).partition(b"\r\n\r\n")[2])
        return told

    told, _ = with_server(Behaviour(), run)
    assert told["requests"] == told["answered"] == 2
    assert told["last"] >= told["first"] > 0


def test_the_settled_rate_is_that_of_the_later_half() -> None:
    service = Service(SMALL, Behaviour())
    service.tally.answered_at.extend([0.0, 2.0, 4.0, 6.0, 6.5, 7.0])
    told = service.tally.summary()
    assert told["rate"] == pytest.approx(5 / 7)
    assert told["settled_rate"] == pytest.approx(2.0)


def test_a_body_that_arrives_in_pieces_belongs_to_its_request() -> None:
    async def run(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"POST /api/v2/login HTTP/1.1\r\nContent-Length: 27\r\n\r\nusername=demo&password=demo"
        for piece in (request[:20], request[20:70], request[70:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        login = await reader.readuntil(b"}")
        writer.write(f"GET {A_TABLE} HTTP/1.1\r\n\r\n".encode())
        details = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return [login, details]

    replies, _ = with_server(Behaviour(), run)
    assert b'"session"' in replies[0]
    assert all(reply.startswith(b"HTTP/1.1 200") for reply in replies)


def test_the_command_line_of_a_server_says_how_it_behaves() -> None:
    told = arguments((5, 20), Behaviour(latency_seconds=0.02, knee=8))
    assert told == ["--databases=5", "--tables=20", "--latency-seconds=0.02", "--knee=8"]


@pytest.mark.slow
def test_a_bystander_asks_on_time_however_slow_the_answers_are() -> None:
    async def run(port: int) -> list[float]:
        bystander = Bystander(f"http://127.0.0.1:{port}")

        def watch() -> None:
            with bystander:
                time.sleep(0.25)

        await asyncio.to_thread(watch)
        return bystander.latencies()

    latencies, service = with_server(Behaviour(latency_seconds=0.15), run)
    assert len(latencies) >= 3
    assert min(latencies) >= 0.15
    assert service.tally.requests == 0


def test_p99_is_what_one_in_a_hundred_exceeds() -> None:
    assert p99(range(1, 201)) == 198
    assert p99([3.0, 1.0]) == 3.0
