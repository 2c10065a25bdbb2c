"""Works at once: all results in their order, or none of them is left running."""

from __future__ import annotations

import asyncio

import pytest

from shardproxy.reshard.together import together


def test_results_have_the_works_order() -> None:
    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(together(map(after, (3, 1, 2)))) == [3, 1, 2]
    assert asyncio.run(together(map(after, ()))) == []


@pytest.mark.parametrize("how", ["one fails", "it is cancelled"])
def test_the_others_have_ended_when_one_fails(how: str) -> None:
    ended = []

    async def lasts(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def fails(main: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)
        if how == "one fails":
            raise ValueError("it failed")
        main.cancel()

    async def run() -> None:
        main = asyncio.current_task()
        assert main is not None
        with pytest.raises(ValueError if how == "one fails" else asyncio.CancelledError):
            await together((lasts(1), fails(main), lasts(2)))
        assert sorted(ended) == [1, 2]

    asyncio.run(run())
