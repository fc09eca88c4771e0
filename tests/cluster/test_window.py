from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdbexport.cluster.window import in_order

# How many turns of the loop each piece of work takes.
turns = st.lists(st.integers(0, 6), max_size=30)


async def each_of(items: Sequence[int]) -> AsyncIterator[int]:
    for item in items:
        await asyncio.sleep(0)
        yield item


async def take(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@settings(max_examples=50)
@given(turns, turns, st.integers(1, 8))
def test_results_keep_their_order_and_the_window_is_never_exceeded(
    work_turns: list[int], reader_turns: list[int], window: int
) -> None:
    begun, handed_on, most = 0, 0, 0

    async def work(index: int) -> int:
        await take(work_turns[index])
        return index

    def begin(index: int) -> asyncio.Future[int]:
        nonlocal begun, most
        begun += 1
        most = max(most, begun - handed_on)
        return asyncio.ensure_future(work(index))

    async def main() -> list[int]:
        nonlocal handed_on
        results = []
        async with aclosing(in_order(each_of(range(len(work_turns))), begin, window=window)) as told:
            async for result in told:
                handed_on += 1
                results.append(result)
                await take(reader_turns[len(results) % len(reader_turns)] if reader_turns else 0)
        return results

    assert asyncio.run(main()) == list(range(len(work_turns)))
    assert most == min(window, len(work_turns)), "the window is used to the full"


@settings(max_examples=50)
@given(turns, st.integers(1, 8), st.data())
def test_an_error_comes_in_its_turn_and_leaves_nothing_running(
    work_turns: list[int], window: int, data: st.DataObject
) -> None:
    failing = data.draw(st.integers(0, len(work_turns)))

    async def work(index: int) -> int:
        await take(([*work_turns, 2])[index])
        if index == failing:
            raise ValueError("broken")
        return index

    async def main() -> list[int]:
        results = []
        with pytest.raises(ValueError, match="broken"):
            async with aclosing(in_order(each_of(range(len(work_turns) + 1)), work, window=window)) as told:
                async for result in told:
                    results.append(result)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return results

    assert asyncio.run(main()) == list(range(failing))


def test_work_goes_on_side_by_side_while_the_first_result_is_awaited() -> None:
    ended: list[int] = []

    async def work(index: int) -> int:
        await take(10 if index == 0 else 1)
        ended.append(index)
        return index

    async def main() -> list[int]:
        return [result async for result in in_order(each_of(range(4)), work, window=4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]
    assert ended == [1, 2, 3, 0]


def test_a_reader_that_leaves_early_leaves_nothing_running() -> None:
    begun, cancelled = [], []

    async def work(index: int) -> int:
        begun.append(index)
        try:
            await take(3) if index == 0 else await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(index)
            raise
        return index

    async def main() -> None:
        async with aclosing(in_order(each_of(range(10)), work, window=4)) as told:
            async for _ in told:
                break
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert begun == [0, 1, 2, 3]
    assert cancelled == [1, 2, 3]


def test_an_error_of_the_source_leaves_nothing_running() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.sleep(0)
        raise ConnectionError("no more")

    async def main() -> None:
        with pytest.raises(ConnectionError, match="no more"):
            async for _ in in_order(source(), lambda index: asyncio.sleep(60), window=4):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
