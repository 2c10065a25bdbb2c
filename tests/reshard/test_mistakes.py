"""The equality test can fail: with one rule of the protocol left out it turns red.

The mistakes are given time: a change that comes twice shows only when it inserts or deletes a row (a changed row is
written as a whole, and the second time makes no difference).
"""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from shardproxy.errors import BackendError, ReshardError, SqlError
from shardproxy.reshard.stream import Mutations, Stream, StreamPlan, start_stream
from tests.reshard.sides import Sides
from tests.reshard.test_equality import MOVING, begin
from tests.reshard.traffic import KEYS


async def move(plan: StreamPlan, dice: random.Random, crashes: int) -> None:
    """Copy and follow, with connections that break off at random moments, but not before something was done."""
    await start_stream(plan)
    for _ in range(crashes):
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


def outcome(sides: Sides, mistake: str, crashes: int) -> str:
    """What turned red: the engine's own error, or rows that are not equal; "" when nothing did."""
    traffic = begin(sides, 5, writers=4, rows=150)

    async def changes() -> None:
        """However slow the machine is: enough are made that some insert or delete a row of the next few copied."""
        enough, until = traffic.done + 300, time.monotonic() + 60
        while traffic.done < enough and not traffic.errors and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    mutations = Mutations(
        position_first=changes if mistake == "position first" else None,
        positions_apart=(lambda: asyncio.sleep(0.3)) if mistake == "apart" else None,
    )
    plan = sides.plan(KEYS, MOVING, cycle_seconds=0.0, chunk_bytes=6000, mutations=mutations)
    try:
        asyncio.run(move(plan, random.Random(6), crashes))
    except BackendError:
        raise
    except (ReshardError, SqlError) as error:
        return str(error)
    finally:
        traffic.stop()

    async def finish() -> None:
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            await stream.catch_up()
        finally:
            await stream.close()

    try:
        asyncio.run(finish())
        sides.assert_equal(plan)
    except (ReshardError, SqlError, AssertionError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mistake", ["position first", "apart"])
def test_mistakes_turn_red(sides: Sides, mistake: str) -> None:
    said = outcome(sides, mistake, 12)
    # Which of them it is depends on the change that was lost or came twice.
    assert "were to be" in said or "Duplicate" in said or "only on the" in said or "changes are missing" in said, said


def test_without_mistakes_it_stays_green(sides: Sides) -> None:
    assert outcome(sides, "none", 6) == ""
