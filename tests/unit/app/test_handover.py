"""What may be acknowledged: the newest map that every worker has answered for."""

from __future__ import annotations

import asyncio

from shardproxy.app.handover import Handover


def test_without_workers_the_newest_map_counts() -> None:
    handover = Handover()
    assert handover.epochs == {}
    handover.new_map({"main": 3})
    assert handover.changed.is_set()
    assert handover.epochs == {"main": 3}
    assert handover.whole


def test_the_slowest_worker_decides() -> None:
    handover = Handover()
    handover.new_map({"main": 1})
    handover.joined(10)
    handover.joined(11)
    first = handover.new_map({"main": 2})
    second = handover.new_map({"main": 2, "other": 5})
    handover.answered(10, second)
    assert handover.epochs == {"main": 1}
    handover.answered(11, first)
    assert handover.epochs == {"main": 2}
    assert not handover.whole
    handover.answered(10, first)  # late, and told already
    handover.answered(11, second)
    assert handover.epochs == {"main": 2, "other": 5}
    assert handover.whole


def test_a_worker_that_has_ended_counts_until_it_is_proved_over() -> None:
    handover = Handover()
    handover.new_map({"main": 1})
    handover.joined(10)
    handover.new_map({"main": 2})
    handover.joined(11)  # in its place: it starts with the newest
    assert handover.epochs == {"main": 1}
    handover.changed.clear()
    handover.left(10)
    assert handover.changed.is_set()
    assert handover.epochs == {"main": 2}
    handover.answered(10, 2)  # a message that was on its way
    assert handover.whole


async def _all_have_left() -> list[bool]:
    handover = Handover()
    await handover.nobody()  # at once: there was none
    for pid in (10, 11):
        handover.joined(pid)
    waiting = asyncio.ensure_future(handover.nobody())
    seen = []
    for pid in (10, 11):
        handover.left(pid)
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append(waiting.done())
    return seen


def test_waiting_for_all_to_leave() -> None:
    assert asyncio.run(_all_have_left()) == [False, True]
