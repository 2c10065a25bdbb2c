"""Strict mode: tombstones that a writer puts itself, before what it writes can be seen (docs/cache.md).

A row of which the key is known gets the tombstone that the keeper would put later. A table of which any row may change
gets one in place of its token, which is a part of the tags of all its entries: none is believed any more, none is
filled for a hold-off, and then there is another token.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from shardproxy import logs
from shardproxy.cache.entries import INVALIDATE, Names
from shardproxy.cache.node import CacheNode
from shardproxy.cache.patterns import CachedRows, CacheSettings
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.redis_ring import RedisRing

log = logs.Log("cache")

_LOOK = 0.01  # seconds between two looks whether a node is there
_AT_ONCE = 1000  # entries in one script
_MOST = 1000  # rows of one transaction and table; with more it is the table
_SURE = 0.9  # of the hold-off: clocks run at different rates


class NotVoided(SqlError):
    """A Redis node could not be told in time."""

    code = 9123


class Due:
    """What is to be made void. rows: by Redis key; whole: names in `[cache.rows]`; queried: tables that kept answers of
    queries are read from."""

    __slots__ = ("queried", "rows", "whole")

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[CachedRows, Sequence[int]]] = {}
        self.whole: set[str] = set()
        self.queried: set[tuple[str, str]] = set()

    def __bool__(self) -> bool:
        return bool(self.rows or self.whole or self.queried)

    def add_row(self, rows: CachedRows, parts: Sequence[int]) -> None:
        """One row. parts: as the pattern has the columns."""
        if rows.name in self.whole:
            return
        self.rows[rows.key(parts)] = (rows, parts)
        if len(self.rows) > _MOST:
            for other, _ in list(self.rows.values()):
                self.add_whole(other)

    def add_whole(self, rows: CachedRows) -> None:
        """The table."""
        self.whole.add(rows.name)
        self.rows = {key: found for key, found in self.rows.items() if found[0] is not rows}

    def copy(self) -> Due:
        """As it is now."""
        other = Due()
        other.rows, other.whole, other.queried = dict(self.rows), set(self.whole), set(self.queried)
        return other

    def clear(self) -> None:
        """Nothing."""
        self.rows.clear()
        self.whole.clear()
        self.queried.clear()


class Voiding:
    """One per worker. counts: rows and tables that were made void, those made void again before the acknowledgement,
    and what could not be."""

    def __init__(self, settings: CacheSettings, nodes: Sequence[CacheNode], ring: RedisRing) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._nodes = nodes
        self._ring = ring
        self.queried = frozenset(settings.queried)
        self._by_table: dict[tuple[str, str], list[CachedRows]] = {}
        for rows in settings.rows:
            self._by_table.setdefault((rows.database, rows.table), []).append(rows)

    def of_table(self, table: tuple[str, str]) -> Sequence[CachedRows]:
        """What is cached of a table."""
        return self._by_table.get(table, ())

    async def void(self, due: Due) -> float:
        """Put the tombstones. Returns until when, by the loop's clock, they surely are there: what is acknowledged by
        then needs no more. Raises NotVoided."""
        loop = asyncio.get_running_loop()
        wanted: dict[CacheNode, list[tuple[CachedRows, Sequence[int]]]] = {}
        for key, found in due.rows.items():
            wanted.setdefault(self._nodes[self._ring.node_of(key)], []).append(found)
        told = self._nodes if due.whole or due.queried else list(wanted)
        deadline = loop.time() + self.settings.write_wait
        work = [self._on(node, wanted.get(node, ()), due, deadline) for node in told]
        try:
            begun = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        except NotVoided:
            self.counts["failed"] += 1
            raise
        self.counts["rows"] += len(due.rows)
        self.counts["tables"] += len(due.whole) + len(due.queried)
        return min(begun, default=loop.time()) + self.settings.hold_off * _SURE

    async def _on(
        self, node: CacheNode, rows: Sequence[tuple[CachedRows, Sequence[int]]], due: Due, deadline: float
    ) -> float:
        """On one node: when the last of it was begun that was done. A process that began meanwhile is told anew."""
        loop = asyncio.get_running_loop()
        hold_off = b"%d" % round(self.settings.hold_off * 1000)
        while True:
            began = loop.time()
            names = Names(node.run, self.settings.digest)
            keys = [names.entry(one.name, parts) for one, parts in rows]
            keys += [names.table(name) for name in sorted(due.whole)]
            keys += [names.queried(table) for table in sorted(due.queried)]
            why = ""
            try:
                async with asyncio.timeout_at(deadline):
                    for at in range(0, len(keys), _AT_ONCE):
                        await node.run_script(INVALIDATE, keys[at : at + _AT_ONCE], [hold_off])
            except BackendError as error:
                why = str(error)
            except TimeoutError:
                why = f"node {node.name} ({node.address}) does not answer"
            if not why and node.run == names.run:
                return began
            if loop.time() > deadline:
                raise NotVoided(
                    f"the cache is strict, and a row cannot be made void on a Redis node ({why or 'it restarts'}): "
                    'start the node, or take cache.mode = "bounded" on all proxies'
                )
            await asyncio.sleep(_LOOK)
