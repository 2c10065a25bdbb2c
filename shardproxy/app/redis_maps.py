"""The Redis port's map: read from the map store, followed, and acknowledged by this proxy.

As with the keyspaces' maps (app.map_watch): the identity is stored before the map is read, and nothing is served before
the map is acknowledged. While the store cannot be reached the proxy goes on under the map that it has: no move goes on
without its acknowledgement, or without shutting it out at the nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

from shardproxy import logs
from shardproxy.app.handover import Handover
from shardproxy.config import Config
from shardproxy.errors import ConfigError, ReshardError, StoreConflict, StoreError, StoreOutcomeUnknown
from shardproxy.reshard.eviction import place_of
from shardproxy.store.interface import ABSENT, Condition, MapStore, Put
from shardproxy.store.opening import open_store
from shardproxy.store.settle import settle
from shardproxy.topology.barrier import Standing
from shardproxy.topology.redis_map import (
    REDIS_MAP,
    REDIS_PROXIES,
    RedisIdentity,
    RedisMap,
    first_of,
    other_placement,
    routing,
)
from shardproxy.topology.redis_routing import Routing

log = logs.Log("redis_map")
RETRY = 0.5  # seconds between two attempts to reach the store
PATIENCE = 5.0  # seconds that a write whose answer was lost is sent again
LEAVE_WAIT = 3.0
CONNECTIONS = "shardproxy"  # names of connections to nodes are `shardproxy:IDENTITY:WORKER:NUMBER`
_NAME = "ring"  # in a Handover


class _EvictedError(Exception):
    """Our identity is not trusted any more."""


class RedisMapWatch:
    """`run` is a task for the proxy's life; `leave` is for its orderly end.

    take: serve by this map from now on, the newest number of `handover`. shut: end everything that is in flight.
    ready: a map is acknowledged, so that clients may come.
    """

    def __init__(
        self,
        config: Config,
        take: Callable[[int, Routing], None],
        shut: Callable[[], Awaitable[None]],
    ) -> None:
        self.handover = Handover()
        self.document: RedisMap | None = None
        self.identity = ""
        self.ready = asyncio.Event()
        self.problem = "the map of the Redis port has not been read yet"
        self._config = config
        self._take = take
        self._shut = shut
        self._store: MapStore | None = None
        self._void: list[str] = []
        assert config.redis is not None
        self._redis = config.redis
        self._first = first_of(config.redis)
        self._order = {name: i for i, name in enumerate(config.redis.nodes)}
        self._replicas = config.redis.replicas_read

    @property
    def routing(self) -> Routing:
        """What a worker that starts now routes by."""
        assert self.document is not None
        return routing(self.document, self._order)

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            evicted = False
            try:
                await self._follow()
            except* (StoreError, ConfigError) as errors:
                self._complain(errors.exceptions[0])
            except* _EvictedError:
                evicted = True
            if evicted:
                log.error("evicted", identity=self.identity)
                self.problem = "shut out, because a map was not acknowledged in time: coming back"
                self.ready.clear()
                self._void.append(self.identity)
                self.identity = ""
                await self._shut()
            else:
                await asyncio.sleep(RETRY)

    async def prove_over(self, pid: int, name: str) -> None:
        """A worker has ended. What it has sent may still lie before a node: end its connections there, so that nothing
        of it is in flight. name: what their names begin with."""
        from shardproxy.reshard.redis_nodes import nodes_of  # a library that only few proxies ever need

        nodes = nodes_of(self._config, self.document)
        try:
            for node in nodes.values():
                while True:
                    try:
                        await node.end_connections(name + ":")
                        break
                    except ReshardError:
                        await asyncio.sleep(RETRY)
        finally:
            for node in nodes.values():
                await node.close()
        self.handover.left(pid)

    async def leave(self) -> None:
        """Take the identity away, if nothing of this proxy is in flight at any node any more; else it stays."""
        if self._store is None:
            return
        if self.identity:
            try:
                async with asyncio.timeout(LEAVE_WAIT):
                    await self.prove_over(0, f"{CONNECTIONS}:{self.identity}")
                    await self._remove(self._store, self.identity)
            except (TimeoutError, StoreError):
                log.warning("identity_stays", identity=self.identity, why="not every node has answered")
        await self._store.close()

    def _complain(self, error: BaseException) -> None:
        if str(error) != self.problem:
            log.error("redis_map_not_read", reason=str(error))
        self.problem = str(error)

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._store is None:
                self._store = await open_store(self._config)
            store = self._store
            if not self.identity:
                await self._register(store)
            revision = await self._read(store)
            group.create_task(self._watch(store, revision))
            group.create_task(self._watch_identity(store))
            group.create_task(self._acknowledge(store))

    async def _register(self, store: MapStore) -> None:
        ident = secrets.token_hex(8)
        cache = self._redis.mode == "cache"
        document = RedisIdentity(
            id=ident, place=place_of(os.getpid()), replicas=self._replicas, cache=cache
        ).document()
        key = REDIS_PROXIES + ident
        await settle(store, [Condition(key, ABSENT)], [Put(key, document)], PATIENCE)
        self.identity = ident

    async def _read(self, store: MapStore) -> int:
        """Serve by the store's map; the file's is put there when there is none. Returns the revision to watch from."""
        while True:
            listing = await store.list(REDIS_MAP)
            entry = next((entry for entry in listing.entries if entry.key == REDIS_MAP), None)
            if entry is not None:
                self._serve(RedisMap.read(entry.key, entry.value))
                return listing.revision
            with contextlib.suppress(StoreConflict, StoreOutcomeUnknown):
                await store.put(REDIS_MAP, self._first.document(), ABSENT)

    def _serve(self, document: RedisMap) -> None:
        """Raises ConfigError for a map that this proxy's file cannot go with."""
        if other := other_placement(document, self._redis):
            raise ConfigError(f"redis.placement: {other}")
        unknown = sorted(document.nodes - self._order.keys())
        if unknown:
            raise ConfigError(
                f"redis.nodes: the map store has keys on {', '.join(unknown)}, which the file does not name; give its "
                "address there and start the proxy anew"
            )
        known, self.document = self.document, document
        self.problem = ""
        if known is None or known.epoch != document.epoch:
            if (document.map, document.ketama) != (self._first.map, self._first.ketama) and known is None:
                log.info("redis_map_of_the_store", epoch=document.epoch, why="the file's weights count no more")
            number = self.handover.new_map({_NAME: document.epoch})
            self._take(number, self.routing)

    async def _watch(self, store: MapStore, revision: int) -> None:
        async with aclosing(store.watch(REDIS_MAP, revision)) as watched:
            async for seen in watched:
                for change in seen.changes:
                    if change.key == REDIS_MAP and change.value is not None:
                        self._serve(RedisMap.read(change.key, change.value))

    async def _watch_identity(self, store: MapStore) -> None:
        key = REDIS_PROXIES + self.identity
        listing = await store.list(key)
        self._check(listing.entries[0].value if listing.entries else None)
        async with aclosing(store.watch(key, listing.revision)) as watched:
            async for seen in watched:
                for change in seen.changes:
                    self._check(change.value)

    def _check(self, value: Mapping[str, object] | None) -> None:
        if value is None or RedisIdentity.read(REDIS_PROXIES, value).standing is not Standing.ACTIVE:
            raise _EvictedError

    async def _acknowledge(self, store: MapStore) -> None:
        """Store what has been handed over, at once."""
        told = 0
        key = REDIS_PROXIES + self.identity
        while True:
            self.handover.changed.clear()
            epoch = self.handover.epochs.get(_NAME, 0)
            if epoch > told:
                entry = await store.get(key)
                if entry is None or (identity := RedisIdentity.read(key, entry.value)).standing is not Standing.ACTIVE:
                    raise _EvictedError
                document = identity.model_copy(update={"acknowledged": epoch}).document()
                await settle(store, [Condition(key, entry.version)], [Put(key, document)], PATIENCE)
                told = epoch
            if self.handover.whole and not self.ready.is_set():
                for old in self._void:
                    await self._remove(store, old)
                self._void.clear()
                self.ready.set()
            await self.handover.changed.wait()

    async def _remove(self, store: MapStore, ident: str) -> None:
        entry = await store.get(REDIS_PROXIES + ident)
        if entry is not None:
            with contextlib.suppress(StoreConflict, StoreOutcomeUnknown):
                await store.delete(entry.key, entry.version)
