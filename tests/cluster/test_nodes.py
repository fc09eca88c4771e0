"""How requests are spread over the addresses of a cluster."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from crdbexport.cluster.dialects.native_by_id import _grants_of
from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.nodes import FIRST_BREAK_SECONDS, LONGEST_BREAK_SECONDS, Node, Nodes
from crdbexport.report import RunReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Delay, Disconnect, Faults, Rule, Status
from crdbexport.sandbox.world import World

URLS = ("a", "b", "c")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes(clock: Clock) -> Nodes:
    """Three addresses that are known."""
    nodes = Nodes(URLS, clock)
    for node in nodes._nodes:
        node.known = True
    return nodes


def taken(nodes: Nodes, number: int, *, side_by_side: bool = False) -> Counter[str]:
    """Which addresses so many requests get, one after the other or all at once."""
    with ExitStack() as held:
        told: Counter[str] = Counter()
        for _ in range(number):
            if side_by_side:
                told[held.enter_context(nodes.one()).base_url] += 1
            else:
                with nodes.one() as node:
                    told[node.base_url] += 1
        return told


def fail(nodes: Nodes, url: str) -> Node:
    (node,) = (each for each in nodes._nodes if each.base_url == url)
    nodes.failed(node)
    return node


@pytest.mark.parametrize("side_by_side", [True, False])
def test_requests_are_spread_evenly(nodes: Nodes, side_by_side: bool) -> None:
    assert taken(nodes, 12, side_by_side=side_by_side) == dict.fromkeys(URLS, 4)


def test_a_slow_node_gets_fewer(nodes: Nodes) -> None:
    with nodes.one() as slow, nodes.one(), nodes.one():
        pass
    with ExitStack() as held:
        while held.enter_context(nodes.one()).base_url != slow.base_url:
            pass
        assert taken(nodes, 10)[slow.base_url] == 0


def test_a_node_that_failed_is_left_out_and_tried_again_by_one_request(nodes: Nodes, clock: Clock) -> None:
    fail(nodes, "b")
    assert taken(nodes, 9).keys() == {"a", "c"}

    clock.now += FIRST_BREAK_SECONDS
    assert taken(nodes, 9, side_by_side=True)["b"] == 1


def test_a_node_that_answers_again_is_asked_as_the_others_are(nodes: Nodes, clock: Clock) -> None:
    node = fail(nodes, "b")
    clock.now += FIRST_BREAK_SECONDS
    nodes.answered(node)
    assert taken(nodes, 9, side_by_side=True) == dict.fromkeys(URLS, 3)


def test_breaks_become_longer_up_to_a_minute(nodes: Nodes, clock: Clock) -> None:
    breaks = []
    for _ in range(7):
        node = fail(nodes, "b")
        breaks.append(node.out_until - clock.now)
        clock.now = node.out_until
    assert breaks == [5, 10, 20, 40, 60, 60, LONGEST_BREAK_SECONDS]


def test_requests_that_fail_side_by_side_are_one_failure(nodes: Nodes) -> None:
    for _ in range(8):
        node = fail(nodes, "b")
    assert node.failures == 1


def test_where_all_have_failed_they_are_asked_in_turn(nodes: Nodes, clock: Clock) -> None:
    for url in URLS:
        fail(nodes, url)
        clock.now += 0.1
    assert taken(nodes, 9) == dict.fromkeys(URLS, 3)


def test_another_attempt_goes_to_another_address(nodes: Nodes) -> None:
    with nodes.one() as first:
        pass
    with ExitStack() as held:
        again = [held.enter_context(nodes.one(avoid=first)).base_url for _ in range(6)]
    assert first.base_url not in again


def test_an_address_that_is_not_known_is_asked_by_one_request_at_a_time(clock: Clock) -> None:
    nodes = Nodes(URLS, clock)
    nodes._nodes[0].known = True
    assert taken(nodes, 10, side_by_side=True) == {"a": 8, "b": 1, "c": 1}


def test_useless_answers_in_a_row_are_a_failure(nodes: Nodes) -> None:
    node = nodes._nodes[1]
    for _ in range(2):
        nodes.doubted(node)
    nodes.answered(node)
    for _ in range(3):
        assert not node.failures
        nodes.doubted(node)
    assert node.failures == 1


@pytest.fixture
def closed_port() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def everywhere(export: Any, *urls: str, **changes: Any) -> RunReport:
    report: RunReport = export(urls[0], more_urls=urls[1:], no_login=True, username=None, **changes)
    return report


def test_an_export_is_spread_over_all_addresses(serve: Any, export: Any) -> None:
    world = World(2, 20)
    apps = [Sandbox(world, require_login=False) for _ in range(3)]

    report = everywhere(export, *[serve(app) for app in apps])

    assert report.status == "complete"
    assert all(app.hits.total() > report.requests.total / 5 for app in apps)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_node_in_trouble_costs_a_few_requests(serve: Any, export: Any, status: int) -> None:
    world = World(2, 20)
    sick = Sandbox(world, require_login=False, faults=Faults(rules=[Rule(".*/tables/.*", Status(status))]))
    well = Sandbox(world, require_login=False)

    report = everywhere(export, serve(sick), serve(well))

    assert (report.status, report.gaps) == ("complete", ())
    assert 0 < report.requests.failed <= 8 + 3
    assert report.requests.concurrency is not None


def test_a_node_that_hangs_costs_its_timeouts(serve: Any, export: Any) -> None:
    world = World(2, 10)
    hung = Sandbox(world, require_login=False, faults=Faults(rules=[Rule(".*/tables/.*", Delay(30))]))

    report = everywhere(export, serve(Sandbox(world, require_login=False)), serve(hung), timeout=0.3)

    assert (report.status, report.gaps) == ("complete", ())
    assert 0 < report.requests.failed <= 8
    assert report.requests.concurrency is not None
    assert report.requests.concurrency.lowered["timeout"] >= 1


def test_one_hiccup_beside_a_dead_address_is_tried_again(serve: Any, export: Any, closed_port: str) -> None:
    flaky = Rule(".*/tables/.*", Disconnect(), hits={1})
    app = Sandbox(World(1, 6), require_login=False, faults=Faults(rules=[flaky]))

    report = everywhere(export, serve(app), closed_port, concurrency=1)

    assert (report.status, report.gaps) == ("complete", ())


def test_a_stranger_among_the_addresses_gets_no_secret_and_ends_the_run(serve: Any, export: Any) -> None:
    stranger = Stranger()
    report: RunReport = export(serve(Sandbox(World(1, 6))), more_urls=(serve(stranger),), username="demo")

    assert report.status == "failed"
    assert "answered HTML" in (report.error or "")
    assert stranger.heads
    assert {(head["method"], head["path"]) for head in stranger.heads} == {("GET", "/api/v2/health")}
    assert not any(name.startswith(b"x-cockroach") for head in stranger.heads for name, _ in head["headers"])


class Stranger:
    """Something else that listens where a node should, and welcomes everybody."""

    def __init__(self) -> None:
        self.heads: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.heads.append(scope)
            headers = [(b"content-type", b"text/html"), (b"content-length", b"9")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"<welcome>"})


def test_endpoints_of_one_kind_differ_in_names_alone() -> None:
    one = Endpoint("GET", ("databases", "movr", "tables", "rides"))
    other = Endpoint("GET", ("databases", "tpcc", "tables", "district"))
    assert one.kind == other.kind != Endpoint("GET", ("databases", "movr", "grants")).kind
    assert _grants_of("table", 104).kind == _grants_of("table", 105).kind != _grants_of("database", 104).kind
