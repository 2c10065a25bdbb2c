"""A fence is closed in one transaction with its markers when nobody is in the way; raised first when a branch is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from shardproxy.errors import NotOurs
from shardproxy.reshard.bookkeeping import StreamName, open_writer
from shardproxy.reshard.link import Link
from shardproxy.reshard.orchestrator import present_position
from shardproxy.reshard.shard_rows import Fence
from tests.proxy import eventually
from tests.reshard.sides import LOGIN, Sides

MOVE, EPOCH = 1, 7
STREAMS = (10_001, 10_002)
RAISED = [(EPOCH + 1,)]
MARKERS = [(stream, EPOCH) for stream in STREAMS]


def epoch(sides: Sides) -> list[tuple[Any, ...]]:
    """As anybody sees it."""
    return list(sides.source.rows("SELECT epoch FROM _shardproxy.fence"))


def marked(sides: Sides) -> list[tuple[Any, ...]]:
    return list(sides.source.rows("SELECT move_id, epoch FROM _shardproxy.marker ORDER BY move_id"))


@contextmanager
def transaction(sides: Sides, *texts: str) -> Iterator[Any]:
    """A transaction that has done this, and is still open."""
    with sides.source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for text in texts:
            cursor.execute(text)
        yield cursor
        cursor.execute("ROLLBACK")


class Closing(Fence):
    """tries: how often its locks were asked for."""

    tries = 0

    async def _if_free(self, link: Link, locks: Sequence[bytes], changes: Sequence[bytes]) -> bool:
        self.tries += 1
        return await super()._if_free(link, locks, changes)


Meanwhile = Callable[[Closing, "asyncio.Task[None]"], Awaitable[None]]


async def nothing(fence: Closing, closing: asyncio.Task[None]) -> None:
    await closing


def close(sides: Sides, meanwhile: Meanwhile = nothing, generation: int = 1) -> int:
    """Close the fence, with something meanwhile; how many transactions that were."""
    server = sides.server(sides.source)

    async def work() -> int:
        async with await open_writer(server, LOGIN) as link:
            await Fence(server, MOVE, StreamName(MOVE, "forward", 1)).arm(link, EPOCH)
            before = await present_position(link)
            fence = Closing(server, MOVE, StreamName(MOVE, "forward", generation))
            closing = asyncio.create_task(fence.close(link, EPOCH, STREAMS))
            try:
                await meanwhile(fence, closing)
            finally:
                closing.cancel()
            after = await present_position(link)
        last = [int(re.split("[-:]", position)[-1]) for position in (before, after)]
        return last[1] - last[0]

    return asyncio.run(work())


def test_in_one_transaction_when_nobody_is_in_the_way(sides: Sides) -> None:
    assert close(sides) == 1
    assert (epoch(sides), marked(sides)) == (RAISED, MARKERS)


def test_who_holds_the_fence_is_waited_for(sides: Sides) -> None:
    async def held(fence: Closing, closing: asyncio.Task[None]) -> None:
        with transaction(sides, "SELECT epoch FROM _shardproxy.fence WHERE move_id = 1 LOCK IN SHARE MODE"):
            await asyncio.to_thread(eventually, lambda: fence.tries > 3, "it tries again")
            assert not closing.done()
            assert (epoch(sides), marked(sides)) == ([(EPOCH,)], [])
        await closing

    close(sides, held)
    assert (epoch(sides), marked(sides)) == (RAISED, MARKERS)


def test_a_branch_in_doubt_is_waited_for_with_the_fence_raised(sides: Sides) -> None:
    """It has given its lock of the fence back when it was prepared; its slot it has still."""
    sides.source.rows("INSERT INTO _shardproxy.fence_slot (proxy, slot) VALUES ('p', 5)")

    async def in_doubt(fence: Closing, closing: asyncio.Task[None]) -> None:
        with transaction(sides, "UPDATE _shardproxy.fence_slot SET branches = branches + 1"):
            await asyncio.to_thread(eventually, lambda: epoch(sides) == RAISED, "nobody else comes through the fence")
            tries = fence.tries
            await asyncio.to_thread(eventually, lambda: fence.tries > tries + 2 or closing.done(), "it tries again")
            assert not closing.done()
            assert marked(sides) == []
        await closing

    close(sides, in_doubt)
    assert marked(sides) == MARKERS


def test_who_does_not_lead_the_move_any_more_closes_nothing(sides: Sides) -> None:
    with pytest.raises(NotOurs, match="another orchestrator has"):
        close(sides, generation=2)
    assert (epoch(sides), marked(sides)) == ([(EPOCH,)], [])
