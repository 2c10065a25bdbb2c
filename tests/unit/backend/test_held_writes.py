"""Who waits for a map is woken by it, and counted once."""

from __future__ import annotations

import asyncio

import pytest

from shardproxy.backend.gateway import HeldWrites


def test_all_are_woken_in_their_order_and_those_that_have_gone_are_left() -> None:
    async def run() -> list[int]:
        held = HeldWrites()
        woken: list[int] = []

        async def wait(number: int) -> None:
            waiter = asyncio.get_running_loop().create_future()
            held.waiters.append(waiter)
            await waiter
            woken.append(number)

        tasks = [asyncio.ensure_future(wait(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.sleep(0)
        held.wake()
        assert not held.waiters
        await asyncio.gather(*tasks, return_exceptions=True)
        return woken

    assert asyncio.run(run()) == [0, 1, 3, 4]


def test_a_command_that_waits_again_is_one_wait() -> None:
    held = HeldWrites()
    held.now.update((1.0, 2.0))
    held.waited(1.0, 0.2)
    held.now.add(1.0)  # under the next map, again
    assert held.take() == []
    held.waited(1.0, 0.5)
    held.waited(2.0, 0.1)
    assert sorted(held.take()) == [0.1, 0.5]
    assert held.take() == []
    assert held.longest == pytest.approx(0.5)
    assert not held.now
