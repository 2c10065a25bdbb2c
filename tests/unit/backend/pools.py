"""Pools on fake servers, and event loops for their tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from shardproxy.backend.pool import Pool
from shardproxy.protocol.mysql.framing import packet
from tests.unit.backend.fake_server import (
    SERVER,
    SHOP,
    FakeServer,
    settled,
)

READ = packet(b"\x03SELECT 1", 0)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in an event loop; what goes wrong in the background fails it."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def guarded() -> None:
            problems: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            await asyncio.wait_for(test(*args, **kwargs), 10)
            await settled()
            assert not problems

        asyncio.run(guarded())

    return run


def made(server: FakeServer, limit: int = 2, wait: float = 5.0, **more: int) -> Pool:
    return Pool(SERVER, server.dial, limit, wait, **more)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 — of plain values
        await asyncio.sleep(0.002)


async def sharing(server: FakeServer, connections: int = 1, depth: int = 4, limit: int = 8) -> Pool:
    """A pool whose shared connections for SHOP are made."""
    pool = made(server, limit, shared_limit=connections, shared_depth=depth)
    assert pool.share(SHOP) is None
    await until(lambda: len(pool.shared[SHOP]) == connections)
    return pool
