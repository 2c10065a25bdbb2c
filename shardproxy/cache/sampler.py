"""How old what the cache gives is: a share of its hits is compared with the row at its primary, off the client's path.

A hit that differs is watched: from the answer of the primary on, its value is known not to be true, and one look after
the other asks the node whether the cache still gives it. What is found is less than the whole time, which began with
the write, before anybody looked. Docs/cache.md says what can be known by this and what cannot.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from shardproxy import logs
from shardproxy.cache.entries import INVALIDATE
from shardproxy.cache.patterns import CacheSettings
from shardproxy.errors import BackendError, RemoteProtocolError, SqlError

if TYPE_CHECKING:
    from shardproxy.cache.row_cache import Place

log = logs.Log("cache")

MOST = 4  # samples of a worker at once: they are not to take the connections that clients need
_LOOKS = 20  # in the time of one bound
_KEPT = 10_000  # ages that nobody has taken yet

Row = bytes | None
Given = Callable[["Place"], Awaitable[tuple[bool, Row]]]


class Sampler:
    """Takes hits from `RowCache`. next: the number of hits at which one is due (`hit`).

    counts: samples by (name in `[cache.rows]`, outcome): same; differs; beyond bound (the promise was broken);
    unknown (a server did not answer, the map has changed, or the row was written back meanwhile); skipped (too many at
    once). ages: for each name, for how many seconds the value was given and known not to be true; 0.0 for the same.
    load: the row at its primary; given: whether the cache would give a row now, and which.
    """

    def __init__(
        self,
        settings: CacheSettings,
        load: Callable[[Place], Awaitable[Row]],
        given: Given,
        later: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.next = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        self.ages: dict[str, list[float]] = {}
        self._settings = settings
        self._load = load
        self._given = given
        self._later = later
        self._running = 0
        self._draw(0)

    def _draw(self, hits: int) -> None:
        """When the next one is due: each hit has the same chance, so that no rhythm of a client's hides anything."""
        share = self._settings.sample
        if share <= 0:
            self.next = -1
        elif share >= 1:
            self.next = hits + 1
        else:  # how many fail before the first that does not, of tries that succeed with this chance
            self.next = hits + 1 + int(math.log(1 - random.random()) / math.log(1 - share))

    def hit(self, hits: int, place: Place, row: Row) -> None:
        """Take this hit, the one with the number `next`."""
        self._draw(hits)
        if self._running >= MOST:
            self.counts[place.rows.name, "skipped"] += 1
            return
        self._running += 1
        self._later(self._sample(place, row))

    async def _sample(self, place: Place, row: Row) -> None:
        outcome, age = "unknown", 0.0
        try:
            outcome, age = await self._judge(place, row)
        except (BackendError, SqlError, RemoteProtocolError) as error:
            log.debug("cache_sample_failed", reason=str(error))
        finally:
            self._running -= 1
        self.counts[place.rows.name, outcome] += 1
        if outcome != "unknown":
            ages = self.ages.setdefault(place.rows.name, [])
            if len(ages) < _KEPT:
                ages.append(age)

    async def _judge(self, place: Place, row: Row) -> tuple[str, float]:
        """The outcome, and for how many seconds the cache was seen to give what was known not to be true."""
        clock = asyncio.get_running_loop().time
        if await self._load(place) == row:
            return "same", 0.0
        untrue, age = clock(), 0.0
        while True:
            began = clock()
            believed, found = await self._given(place)
            if not believed or found != row:
                return "differs", age
            age = began - untrue
            if age > self._settings.bound:
                return await self._beyond(place, row, age)
            await asyncio.sleep(self._settings.bound / _LOOKS)

    async def _beyond(self, place: Place, row: Row, age: float) -> tuple[str, float]:
        """It is given for longer than the bound: say so, and see to it that it is given no longer."""
        if await self._load(place) == row:
            return "unknown", age
        log.error(
            "cache_stale",
            rows=place.rows.name,
            seconds=round(age, 3),
            reason="a write is missing in the binlog, or a node, its clock or a keeper does not do what it must",
        )
        await place.node.run_script(INVALIDATE, [place.entry], [b"%d" % round(self._settings.hold_off * 1000)])
        return "beyond bound", age
