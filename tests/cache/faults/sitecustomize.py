"""Imported by every Python that the hunt for stale rows starts: leaves out a rule of docs/cache.md.

SHARDPROXY_CACHE_WITHOUT: `hold_off` (an invalidated entry is only deleted), `lease` (a fill does not ask whether its
lease still holds), `refresh` (nor does who loads a value anew), `before` (strict: writers put no tombstone, and nobody
but the keeper does), `events` (the keeper does not see what happens to rows whose key is 13), `primary` (rows are
loaded from replicas), `tokens` (answers of queries are believed under any), or `nothing`. In all cases a row takes up
to 50 ms longer to come, so that there is something to overtake.
"""

from __future__ import annotations

import asyncio
import os
import random
from types import SimpleNamespace
from typing import Any

WITHOUT = os.environ["SHARDPROXY_CACHE_WITHOUT"]


def _install() -> None:
    from shardproxy.cache import entries

    if WITHOUT == "hold_off":
        entries.INVALIDATE = entries.Script("for _, key in ipairs(KEYS) do redis.call('DEL', key) end return #KEYS")
    elif WITHOUT == "lease":
        entries.FILL = entries.Script("redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1")
    elif WITHOUT == "refresh":
        text = entries.REFILL.text.decode()
        entries.REFILL = entries.Script("\n".join(line for line in text.splitlines() if "GETRANGE" not in line))
    elif WITHOUT == "tokens":
        from shardproxy.cache.answers import Guards

        tag = Guards.tag
        unguarded: Any = Guards
        unguarded.tag = lambda guards, marks, tokens: tag(guards, marks, ())
    elif WITHOUT == "before":
        from shardproxy.cache.voiding import Voiding

        async def nothing(voiding: Voiding, due: object) -> float:
            return float("inf")

        silent: Any = Voiding
        silent.void = nothing

    elif WITHOUT == "events":
        from shardproxy.keeper.keep import ShardKeeper

        add = ShardKeeper._add

        def some(keeper: ShardKeeper, wanted: Any, table: int, literal: bytes) -> None:
            if literal.strip(b"()") != b"13":
                add(keeper, wanted, table, literal)

        blind: Any = ShardKeeper
        blind._add = some

    from shardproxy.cache.row_cache import Place, Row, RowCache

    changed: Any = RowCache
    if WITHOUT == "primary":
        select = RowCache._select

        async def elsewhere(cache: RowCache, place: Place, shard: int) -> Row:
            replica = next(iter(cache.gateway.shards[shard].replicas.values()))
            pools = SimpleNamespace(shards={shard: SimpleNamespace(primary=replica)})
            other: Any = SimpleNamespace(gateway=pools, _texts=cache._texts)
            return await select(other, place, shard)

        changed._select = elsewhere
    load = RowCache._load

    async def slowly(cache: RowCache, place: Place) -> Row:
        row = await load(cache, place)
        await asyncio.sleep(random.uniform(0, 0.05))
        return row

    changed._load = slowly


_install()
