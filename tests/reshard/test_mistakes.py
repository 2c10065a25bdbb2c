"""The equality test can fail: with one rule of the protocol left out it turns red.

The mistakes are given time: a change that comes twice shows only when it inserts or deletes a row (a changed row is
written as a whole, and the second time makes no difference).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from shardproxy.errors import BackendError, ReshardError, SqlError
from shardproxy.reshard.stream import Mutations, Stream, StreamPlan, start_stream
from tests.reshard.sides import Sides
from tests.reshard.test_equality import MOVING, begin
from tests.reshard.traffic import KEYS, Traffic

Work = Callable[[StreamPlan, Traffic], Coroutine[Any, Any, None]]


async def move(plan: StreamPlan, dice: random.Random) -> None:
    """Copy and follow, with connections that break off at random moments, but not before something was done."""
    await start_stream(plan)
    for _ in range(6):
        stream = await Stream.open(plan)
        working = asyncio.create_task(_work(stream))
        try:
            commits, until = dice.randrange(1, 5), time.monotonic() + 20
            counts = stream.applier.counts
            while not working.done() and counts.commits < commits and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.wait((working,), timeout=dice.random() * 0.4)
            if working.done():
                await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await stream.close()


async def _work(stream: Stream) -> None:
    await stream.copy()
    await stream.follow()


async def _copy(plan: StreamPlan) -> None:
    await start_stream(plan)
    stream = await Stream.open(plan)
    try:
        await stream.copy()
    finally:
        await stream.close()


async def _changes(traffic: Traffic) -> None:
    """However slow the machine is: enough are made that some insert or delete a row."""
    enough, until = traffic.done + 300, time.monotonic() + 60
    while traffic.done < enough and not traffic.errors and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def position_first(plan: StreamPlan, traffic: Traffic) -> None:
    """A change between the two is in the rows that are copied, and comes again."""
    await _copy(replace(plan, mutations=Mutations(position_first=lambda: _changes(traffic))))


async def apart(plan: StreamPlan, traffic: Traffic) -> None:
    """It dies between the rows and their position: what it had applied comes again. That may be a few changed rows,
    so it dies again and again; what shows that it comes twice ends the next stream."""
    await _copy(plan)
    between = asyncio.Event()

    async def death() -> None:
        between.set()
        await asyncio.Event().wait()

    for _ in range(20):
        await _changes(traffic)
        between.clear()
        stream = await Stream.open(replace(plan, mutations=Mutations(positions_apart=death)))
        working = asyncio.create_task(stream.catch_up())
        dying = asyncio.create_task(between.wait())
        try:
            await asyncio.wait((working, dying), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        finally:
            for task in (working, dying):
                task.cancel()
            await asyncio.gather(working, dying, return_exceptions=True)
            await stream.close()


def outcome(sides: Sides, work: Work) -> str:
    """What turned red: the engine's own error, or rows that are not equal; "" when nothing did."""
    plan = sides.plan(KEYS, MOVING, cycle_seconds=0.0, chunk_bytes=6000)
    traffic = begin(sides, 5, writers=4, rows=150)

    async def finish() -> None:
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            await stream.catch_up()
        finally:
            await stream.close()

    try:
        try:
            asyncio.run(work(plan, traffic))
        finally:
            traffic.stop()
        asyncio.run(finish())
        sides.assert_equal(plan)
    except BackendError:
        raise
    except (ReshardError, SqlError, AssertionError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mistake", [position_first, apart])
def test_mistakes_turn_red(sides: Sides, mistake: Work) -> None:
    said = outcome(sides, mistake)
    # Which of them it is depends on the change that was lost or came twice.
    assert "were to be" in said or "Duplicate" in said or "only on the" in said or "changes are missing" in said, said


def test_without_mistakes_it_stays_green(sides: Sides) -> None:
    assert outcome(sides, lambda plan, _: move(plan, random.Random(6))) == ""
