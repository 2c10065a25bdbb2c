"""Loads that many wait for: one after the other, each for those who came before it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from shardproxy.cache.loads import Loads
from shardproxy.errors import BackendError


class Primary:
    """Gives `row` as it was when it was asked, when `gate` opens."""

    def __init__(self) -> None:
        self.row: bytes | Exception = b"1"
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.loads = Loads(self.load, self.later)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def load(self, place: Any) -> bytes | None:
        self.asked.append(place.entry)
        row = self.row
        await self.gate.wait()
        if isinstance(row, Exception):
            raise row
        return row

    def wanted(self, entry: bytes = b"a") -> asyncio.Task[bytes | None]:
        place: Any = SimpleNamespace(entry=entry)
        return asyncio.get_running_loop().create_task(self.loads.row(place))


async def begun() -> None:
    """Whatever can begin now has begun."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_those_who_come_together_share_one_load() -> None:
    async def test() -> None:
        primary = Primary()
        tasks = [primary.wanted() for _ in range(50)]
        other = primary.wanted(b"b")
        await begun()
        primary.gate.set()
        assert await asyncio.gather(*tasks, other) == [b"1"] * 51
        assert sorted(primary.asked) == [b"a", b"b"]

    asyncio.run(test())


def test_who_comes_later_gets_a_load_that_begins_later() -> None:
    async def test() -> None:
        primary = Primary()
        first = primary.wanted()
        await begun()
        primary.row = b"2"
        later = [primary.wanted() for _ in range(50)]
        await begun()
        assert len(primary.asked) == 1  # not two at once
        primary.gate.set()
        assert await first == b"1"
        assert await asyncio.gather(*later) == [b"2"] * 50
        assert len(primary.asked) == 2
        primary.row = b"3"
        assert await primary.wanted() == b"3"  # and it begins anew
        await asyncio.gather(*primary.tasks)

    asyncio.run(test())


@pytest.mark.parametrize("error", [BackendError("away"), ZeroDivisionError()])
def test_all_get_the_error_and_those_who_come_later_do_not(error: Exception) -> None:
    async def test() -> None:
        primary = Primary()
        primary.row = error
        tasks = [primary.wanted() for _ in range(3)]
        await begun()
        primary.row = b"1"
        later = primary.wanted()
        primary.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found == [error] * 3
        assert await later == b"1"

    asyncio.run(test())


def test_who_goes_away_harms_nobody() -> None:
    async def test() -> None:
        primary = Primary()
        gone, stays = primary.wanted(), primary.wanted()
        await begun()
        gone.cancel()
        primary.gate.set()
        assert await stays == b"1"
        await asyncio.gather(*primary.tasks)

    asyncio.run(test())
