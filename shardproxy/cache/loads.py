"""Rows from their primaries that nobody keeps: of one row one load after the other, each for all who wait for it.

So a primary that is slow, or a row that was just written, is asked by each worker once at a time, however many want it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardproxy.cache.row_cache import Place

Row = bytes | None


class Loads:
    """Of one worker. load: the row at its primary. later: runs something as a task."""

    def __init__(
        self, load: Callable[[Place], Awaitable[Row]], later: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._load = load
        self._later = later
        self._waiting: dict[bytes, list[asyncio.Future[Row]]] = {}  # by entry; those of the next load

    async def row(self, place: Place) -> Row:
        """What a load finds that begins after this call: nobody gets what is older than a write that he has seen.
        Raises what `load` raises."""
        waiting = self._waiting.get(place.entry)
        if waiting is None:
            waiting = self._waiting[place.entry] = []
            self._later(self._run(place))
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return await future

    async def _run(self, place: Place) -> None:
        try:
            while waiting := self._waiting[place.entry]:
                self._waiting[place.entry] = []
                await self._one(place, waiting)
        finally:
            del self._waiting[place.entry]

    async def _one(self, place: Place, waiting: list[asyncio.Future[Row]]) -> None:
        try:
            row = await self._load(place)
        except Exception as error:  # theirs to handle, whatever it is
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
        else:
            for future in waiting:
                if not future.done():
                    future.set_result(row)
