"""Waiting for what somebody else brings: one look after the other, with one command for all of a worker who wait.

There may be thousands of them: as long as nothing has come, a look wakes none but those who have waited long enough.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from shardproxy.errors import BackendError

_FIRST, _LONGEST = 0.002, 0.05  # seconds between two looks

Found = TypeVar("Found")


class Looks(Generic[Found]):
    """later: runs something as a task. on_its_way: whether what was found says that somebody still brings it."""

    def __init__(self, later: Callable[[Coroutine[Any, Any, None]], None], on_its_way: Callable[[Found], bool]) -> None:
        self._later = later
        self._on_its_way = on_its_way
        self._looks: dict[Hashable, _Look[Found]] = {}

    async def next(self, key: Hashable, ask: Callable[[], Awaitable[Found]], deadline: float) -> Found | None:
        """What is found at a key as soon as it is not on its way any more, or after the deadline, whatever it is; None
        when nothing can be found out. ask: looks, the same for all who wait with this key; may raise BackendError.
        deadline: by the loop's clock."""
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = _Look()
            self._later(self._run(key, look, ask))
        return await look.result(deadline)

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
                count = look.count()
                if not count:
                    return
                found: Found | None = None
                with contextlib.suppress(BackendError):
                    found = await ask()
                if found is not None and self._on_its_way(found):
                    look.tell_late(count, found)
                else:
                    look.tell(count, found)
                await asyncio.sleep(0)  # those who wait on come back
        finally:
            del self._looks[key]
            look.tell(look.count(), None)


class _Look(Generic[Found]):
    """Nobody gets what was asked for before he came: it may be older than a write that he has seen acknowledged."""

    def __init__(self) -> None:
        self.now = asyncio.Event()
        self._waiting: list[tuple[asyncio.Future[Found | None], float]] = []

    def result(self, deadline: float) -> asyncio.Future[Found | None]:
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, deadline))
        return future

    def count(self) -> int:
        """How many wait; those who have gone away do not."""
        self._waiting = [one for one in self._waiting if not one[0].done()]
        return len(self._waiting)

    def tell(self, count: int, found: Found | None) -> None:
        """Those who came first, so many."""
        told, self._waiting = self._waiting[:count], self._waiting[count:]
        for future, _ in told:
            if not future.done():
                future.set_result(found)

    def tell_late(self, count: int, found: Found) -> None:
        """Of those who came first, so many, the ones whose deadline is over."""
        now = asyncio.get_running_loop().time()
        stay: list[tuple[asyncio.Future[Found | None], float]] = []
        for future, deadline in self._waiting[:count]:
            if deadline > now:
                stay.append((future, deadline))
            elif not future.done():
                future.set_result(found)
        self._waiting[:count] = stay
