"""Who waits for what somebody else brings: when he is told, and what."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from shardproxy.cache.looks import Looks
from shardproxy.errors import BackendError

FAR = 1e9  # a deadline that never comes


class World:
    """Looks at `there`, of which "lease" is on its way. asked: how often. gate: looks wait for it."""

    def __init__(self) -> None:
        self.there = "lease"
        self.asked = 0
        self.woken = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.tasks: list[asyncio.Task[Any]] = []
        self.looks: Looks[str] = Looks(self.later, lambda found: found == "lease")

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def ask(self) -> str:
        self.asked += 1
        found = self.there
        await self.gate.wait()
        if found == "broken":
            raise BackendError("no answer")
        return found

    def wait(self, deadline: float = FAR) -> asyncio.Task[str | None]:
        async def waits() -> str | None:
            found = await self.looks.next("key", self.ask, deadline)
            self.woken += 1
            return found

        return asyncio.get_running_loop().create_task(waits())

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while self.asked < times:
                await asyncio.sleep(0)
                self.looks.hurry("key")

    async def done(self) -> None:
        """All looks have ended."""
        async with asyncio.timeout(10):
            await asyncio.gather(*self.tasks)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_nobody_is_woken_before_it_is_there() -> None:
    async def test() -> None:
        world = World()
        waiting = [world.wait() for _ in range(100)]
        await world.until_asked(5)
        assert world.woken == 0
        world.there = "row"
        assert await asyncio.gather(*waiting) == ["row"] * 100
        assert world.asked < 5 + 3  # one look for all of them
        await world.done()

    run(test())


def test_who_has_waited_long_enough_is_told() -> None:
    async def test() -> None:
        world = World()
        late, patient = world.wait(deadline=0.0), world.wait()
        assert await late == "lease"
        assert not patient.done()
        world.there = "row"
        assert await patient == "row"
        await world.done()

    run(test())


def test_nobody_is_told_what_was_asked_for_before_he_came() -> None:
    async def test() -> None:
        world = World()
        world.there = "old"
        world.gate.clear()
        first = world.wait()
        await world.until_asked(1)
        second, late = world.wait(), world.wait(deadline=0.0)
        await asyncio.sleep(0)
        world.there = "new"
        world.gate.set()
        assert list(await asyncio.gather(first, second, late)) == ["old", "new", "new"]
        await world.done()

    run(test())


def test_a_deadline_does_not_make_old_news_good_enough() -> None:
    async def test() -> None:
        world = World()
        world.gate.clear()
        first = world.wait()
        await world.until_asked(1)
        late = world.wait(deadline=0.0)
        await asyncio.sleep(0)
        world.there = "row"
        world.gate.set()
        assert list(await asyncio.gather(first, late)) == ["row", "row"]
        await world.done()

    run(test())


def test_when_nothing_can_be_found_out() -> None:
    async def test() -> None:
        world = World()
        world.there = "broken"
        assert await asyncio.gather(*(world.wait() for _ in range(3))) == [None] * 3
        await world.done()

    run(test())


def test_looks_end_when_nobody_waits_any_more() -> None:
    async def test() -> None:
        world = World()
        waiting = [world.wait() for _ in range(3)]
        await world.until_asked(2)
        for task in waiting:
            task.cancel()
        await world.done()

    run(test())
