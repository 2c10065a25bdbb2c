"""The supervisor's side of the cache's keeper: what it is told, and that there is always one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from shardproxy import logs
from shardproxy.app.settings import RedisWorkerSettings
from shardproxy.backend.control import Credentials
from shardproxy.cache.patterns import CacheSettings, has_table
from shardproxy.config import Config
from shardproxy.counters import Counters
from shardproxy.keeper.process import Condition, KeeperSettings, run_keeper
from shardproxy.reshard.link import LinkLogin
from shardproxy.topology.model import Snapshot

log = logs.Log("supervisor")
_PAUSE = 0.5  # seconds before another one is started
_LOOK = 1.0  # seconds between two looks whether there are other shards


def keeper_settings(config: Config, cache: CacheSettings, redis: RedisWorkerSettings) -> KeeperSettings:
    """What does not depend on the map. Raises ConfigError for a password that is missing."""
    login = LinkLogin(Credentials.of_moves(config), config.backend.connect_timeout)
    return KeeperSettings(
        cache, (), login, tuple(redis.nodes), tuple(redis.owners), redis.user, redis.password,
        redis.connect_timeout, redis.timeout, config.proxy.log_level, config.proxy.log_format,
    )  # fmt: skip


def _with_shards(settings: KeeperSettings, snapshot: Snapshot) -> KeeperSettings:
    """With the shards that have cached rows, or tables of kept answers, under a map."""
    shards = []
    for number, shard in enumerate(snapshot.shards):
        rows = tuple(one for one in settings.cache.rows if has_table(snapshot, number, (one.database, one.table)))
        queried = tuple(table for table in settings.cache.queried if has_table(snapshot, number, table))
        if rows or queried:
            shards.append((shard.primary, rows, queried))
    return replace(settings, shards=tuple(shards))


class CacheKeeping:
    """`run` it as a task; `count` puts what is known into counters. snapshot: gives the newest map."""

    def __init__(self, settings: KeeperSettings, snapshot: Callable[[], Snapshot]) -> None:
        self._base = settings
        self._snapshot = snapshot
        self._conditions: Mapping[str, Condition] = {}
        self._counted: dict[str, int] = {}

    async def run(self) -> None:
        """Keep a keeper running, under the newest map."""
        while True:
            settings = _with_shards(self._base, self._snapshot())
            keeper = asyncio.create_task(run_keeper(settings, self._told))
            try:
                while not keeper.done() and _with_shards(self._base, self._snapshot()) == settings:
                    await asyncio.wait([keeper], timeout=_LOOK)
            finally:
                died = keeper.done()
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, ValueError):
                    await keeper
            self._told({name: Condition(False, 0, "the keeper has ended") for name in self._conditions})
            self._counted.clear()
            if died:
                log.error("cache_keeper_died")
                await asyncio.sleep(_PAUSE)

    def _told(self, conditions: Mapping[str, Condition]) -> None:
        for name, condition in conditions.items():
            before = self._conditions.get(name)
            if before is None or before.fresh != condition.fresh:
                if condition.fresh:
                    log.info("cache_kept", shard=name)
                else:
                    log.warning("cache_bypassed", shard=name, reason=condition.problem)
        self._conditions = dict(conditions)

    def count(self, counters: Counters) -> None:
        """As of the last second."""
        for name, condition in self._conditions.items():
            counters.set("shardproxy_cache_fresh", (name,), float(condition.fresh))
            new = condition.invalidated - self._counted.get(name, 0)
            if new > 0:
                counters.add("shardproxy_cache_invalidations_total", (name,), new)
                self._counted[name] = condition.invalidated
