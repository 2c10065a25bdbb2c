"""Waiting for what somebody else brings: one look after the other, with one command for all of a worker who wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from shardproxy.errors import BackendError

_FIRST, _LONGEST = 0.002, 0.05  # seconds between two looks

Found = TypeVar("Found")


class Looks(Generic[Found]):
    """later: runs something as a task."""

    def __init__(self, later: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._later = later
        self._looks: dict[Hashable, _Look[Found]] = {}

    async def next(self, key: Hashable, ask: Callable[[], Awaitable[Found]]) -> Found | None:
        """What the next look at a key finds; None when nothing can be found out. ask: looks, the same for all who wait
        with this key; may raise BackendError."""
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = _Look()
            self._later(self._run(key, look, ask))
        return await look.result()

    def hurry(self, key: Hashable) -> None:
        """It is there, or will not come."""
        look = self._looks.get(key)
        if look is not None:
            look.now.set()

    async def _run(self, key: Hashable, look: _Look[Found], ask: Callable[[], Awaitable[Found]]) -> None:
        pause = _FIRST
        try:
            while True:
                look.now.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await look.now.wait()
                pause = min(pause * 2, _LONGEST)
                waiting = look.taken()
                if not waiting:
                    return
                found: Found | None = None
                with contextlib.suppress(BackendError):
                    found = await ask()
                _tell(waiting, found)
                await asyncio.sleep(0)  # those who wait on come back
        finally:
            del self._looks[key]
            _tell(look.taken(), None)


class _Look(Generic[Found]):
    """Nobody gets what was asked for before he came: it may be older than a write that he has seen acknowledged."""

    def __init__(self) -> None:
        self.now = asyncio.Event()
        self._waiting: list[asyncio.Future[Found | None]] = []

    def result(self) -> asyncio.Future[Found | None]:
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def taken(self) -> list[asyncio.Future[Found | None]]:
        """Those who have waited until now and still do."""
        waiting, self._waiting = self._waiting, []
        return [future for future in waiting if not future.done()]


def _tell(waiting: list[asyncio.Future[Found | None]], found: Found | None) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(found)
