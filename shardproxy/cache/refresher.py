"""Values that are loaded anew while they are given: early, before their time is over, or late, after it.

A value's entry says from when on that may be, and has the lease of who does it (`entries.STAMP`): one loader over all
workers and proxies, and whatever makes the entry void makes its load void. Such a value is believed, or not, as any
other; no write is seen later for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from time import time
from typing import TYPE_CHECKING, Any

from shardproxy import logs
from shardproxy.cache.entries import REFILL, STAMP, TAKE_REFRESH, due_at, stamp_token, value
from shardproxy.cache.patterns import CacheSettings
from shardproxy.errors import BackendError, RemoteProtocolError, SqlError

if TYPE_CHECKING:
    from shardproxy.cache.row_cache import Place

log = logs.Log("cache")

MOST = 32  # loads of a worker at once: clients need connections, too
_REFUSED = 0.1  # seconds until a worker asks again for a lease that it did not get

Row = bytes | None


class Refresher:
    """load: the row at its primary; current: whether the map is that of a place. counts: `refreshed`, loads that were
    begun; `fill refused`, those that a write made void."""

    def __init__(
        self,
        settings: CacheSettings,
        counts: Counter[str],
        load: Callable[[Place], Awaitable[Row]],
        current: Callable[[Place], bool],
        later: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._load = load
        self._current = current
        self._later = later
        self._running: set[bytes] = set()

    def hit(self, place: Place, wanted: bytes, stamped: bytes) -> None:
        """A hit, its tag, and its payload with the stamp. Clocks need not be the node's: it looks, too."""
        if due_at(stamped) > time() * 1000 or place.entry in self._running or len(self._running) >= MOST:
            return
        self._running.add(place.entry)
        self._later(self._refresh(place, value(wanted, b""), stamped[:STAMP]))

    async def _refresh(self, place: Place, head: bytes, stamp: bytes) -> None:
        """head: kind and tag of the value."""
        try:
            token = stamp_token()
            lease = b"%d" % round(self._settings.lease * 1000)
            if not await place.node.run_script(TAKE_REFRESH, [place.entry], [head + stamp, token, lease]):
                await asyncio.sleep(_REFUSED)  # somebody else has it, or our clock is ahead of the node's
                return
            self._counts["refreshed"] += 1
            row = await self._load(place)  # from here on the entry is void if the row is written
            if self._current(place):
                await self._refill(place, head, token, row)
        except (BackendError, SqlError, RemoteProtocolError) as error:
            log.debug("cache_refresh_failed", reason=str(error))  # another one tries it when the lease is over
        finally:
            self._running.discard(place.entry)

    async def _refill(self, place: Place, head: bytes, token: bytes, row: Row) -> None:
        rows = place.rows
        if row is None:
            words = [value(head[1:], None), b"", b"%d" % rows.absent_ttl, b"-1"]
        else:
            words = [head, row, b"%d" % (rows.ttl + rows.stale_for), b"%d" % (rows.ttl - rows.refresh_before)]
        if not await place.node.run_script(REFILL, [place.entry], [head, token, *words]):
            self._counts["fill refused"] += 1
