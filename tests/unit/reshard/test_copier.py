"""The copier's own work, apart from servers."""

from __future__ import annotations

import asyncio

import pytest

from shardproxy.reshard.copier import _Chunk, _next


def test_who_is_cancelled_while_waiting_for_rows_leaves_nothing_running() -> None:
    async def run() -> None:
        chunks: asyncio.Queue[_Chunk | None] = asyncio.Queue(1)
        reading = asyncio.create_task(_never())
        waiting = asyncio.create_task(_next(chunks, reading))
        for _ in range(3):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - {asyncio.current_task()} == {reading}
        reading.cancel()

    asyncio.run(run())


async def _never() -> None:
    await asyncio.Event().wait()
