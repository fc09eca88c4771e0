"""How requests are spread over the addresses of a cluster."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from crdbexport.cluster.endpoint import Endpoint
from crdbexport.cluster.nodes import FIRST_BREAK_SECONDS, LONGEST_BREAK_SECONDS, Node, Nodes
from crdbexport.http import HttpClient, Reply
from crdbexport.report import RunReport
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Faults, Rule, Status
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
    return Nodes(URLS, clock)


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


def test_where_all_have_failed_the_one_whose_break_ends_first_is_asked(nodes: Nodes, clock: Clock) -> None:
    for url in ("b", "a", "c"):
        fail(nodes, url)
        clock.now += 0.1
    assert taken(nodes, 3) == {"b": 3}


def everywhere(export: Any, *urls: str) -> RunReport:
    report: RunReport = export(urls[0], more_urls=urls[1:], no_login=True, username=None)
    return report


def test_an_export_is_spread_over_all_addresses(serve: Any, export: Any) -> None:
    world = World(2, 20)
    apps = [Sandbox(world, require_login=False) for _ in range(3)]

    report = everywhere(export, *[serve(app) for app in apps])

    assert report.status == "complete"
    assert all(app.hits.total() > report.requests.total / 5 for app in apps)


def test_a_node_out_of_service_costs_a_few_requests(serve: Any, export: Any) -> None:
    world = World(2, 20)
    sick = Sandbox(world, require_login=False, faults=Faults(rules=[Rule(".*/tables/.*", Status(503))]))
    well = Sandbox(world, require_login=False)

    report = everywhere(export, serve(sick), serve(well))

    assert (report.status, report.gaps) == ("complete", ())
    assert 0 < report.requests.failed <= 8
    assert report.requests.concurrency is not None
    assert report.requests.concurrency.lowered["unavailable"] >= 1


def test_a_node_that_goes_away_is_no_loss(serve: Any, export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third request to it, and every later one, finds nobody."""
    world, right, asked = World(2, 20), HttpClient.send, Counter[str]()
    urls = [serve(Sandbox(world, require_login=False)) for _ in range(2)]

    async def send(client: HttpClient, method: str, url: str, **others: Any) -> Reply:
        asked[url.split("/api/", maxsplit=1)[0]] += 1
        gone = url.startswith(urls[0]) and asked[urls[0]] > 2
        return await right(client, method, "http://127.0.0.1:1/" if gone else url, **others)

    monkeypatch.setattr(HttpClient, "send", send)
    report = everywhere(export, *urls)

    assert (report.status, report.gaps) == ("complete", ())
    assert asked[urls[0]] <= 2 + 8


def test_endpoints_of_one_kind_differ_in_names_alone() -> None:
    one = Endpoint("GET", ("databases", "movr", "tables", "rides"))
    other = Endpoint("GET", ("databases", "tpcc", "tables", "district"))
    assert one.kind == other.kind != Endpoint("GET", ("databases", "movr", "grants")).kind
