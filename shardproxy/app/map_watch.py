"""This proxy in the map store: its identity, the maps that it serves by, and its acknowledgements.

The identity is stored before the maps are read, and nothing is served before what was read is acknowledged. So whoever
writes a map and lists the identities afterwards knows everybody who may serve by an older one.

While the store cannot be reached the proxy goes on under the map that it has: nobody can open a move's target without
its acknowledgement, or without shutting it out at the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

from shardproxy import logs
from shardproxy.app.handover import Handover
from shardproxy.app.load_samples import LoadSamples
from shardproxy.config import Config
from shardproxy.errors import ConfigError, StoreConflict, StoreError, StoreOutcomeUnknown
from shardproxy.reshard.eviction import place_of
from shardproxy.store.interface import ABSENT, Condition, MapStore, Put
from shardproxy.store.maps import maps_with_first
from shardproxy.store.opening import open_store
from shardproxy.store.presence import show_presence
from shardproxy.store.settle import settle
from shardproxy.topology.barrier import Acknowledgement, Identity, Standing
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, ALIVE, MAPS, PROXIES

log = logs.Log("maps")
RETRY = 0.5  # seconds between two attempts to reach the store
PATIENCE = 5.0  # seconds that a write whose answer was lost is sent again
SHOWN = 10  # seconds after which a proxy that has vanished is shown no more

Documents = Mapping[str, MapDocument]


class _EvictedError(Exception):
    """Our identity is not trusted any more."""


class MapWatch:
    """`run` is a task for the proxy's life; `leave` is for its orderly end.

    take: serve by these maps from now on; raises ConfigError for maps that this proxy cannot serve by. shut: end
    everything that is in flight, for the identity is void; it returns when the workers are gone. handover.epochs are
    acknowledged as they grow. loads: kept in the store as well.

    identity: None before the first one is stored. up: the store has answered last. problem: why not, or why the newest
    maps are not served by. acknowledged: something is, so that clients may come.
    """

    def __init__(
        self,
        config: Config,
        snapshot: Snapshot,
        handover: Handover,
        take: Callable[[Documents], None],
        shut: Callable[[], Awaitable[None]],
        loads: LoadSamples | None = None,
    ) -> None:
        self.identity: Identity | None = None
        self.documents: Documents = {}
        self.up = False
        self.problem = "the map store has not been read yet"
        self.acknowledged = asyncio.Event()
        self._config = config
        self._snapshot = snapshot
        self._handover = handover
        self._take = take
        self._shut = shut
        self._loads = loads
        self._store: MapStore | None = None
        self._told: dict[str, int] | None = None  # as last acknowledged
        self._version: int | None = None  # of the acknowledgement, where it is known
        self._void: list[str] = []  # our earlier identities, to be removed

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            evicted = False
            try:
                await self._follow()
            except* StoreError as errors:
                self.up = False
                self._complain(errors.exceptions[0])
            except* ConfigError as errors:
                self._complain(errors.exceptions[0])
            except* _EvictedError:
                evicted = True
            if evicted:
                await self._return()
            else:
                await asyncio.sleep(RETRY)

    async def leave(self, over: bool) -> None:
        """Take identity and acknowledgement away. over: nothing of this proxy is in flight any more; else they stay,
        and whoever needs a barrier finds that the process is gone."""
        if self._store is None:
            return
        if over and self.identity is not None:
            with contextlib.suppress(StoreError):
                await self._remove(self._store, self.identity.id)
        await self._store.close()

    def _complain(self, error: BaseException) -> None:
        if str(error) != self.problem:
            log.error("maps_not_read", reason=str(error))
        self.problem = str(error)

    async def _follow(self) -> None:
        """Read, serve and acknowledge until something fails.

        Raises groups of StoreError, ConfigError, _EvictedError.
        """
        async with asyncio.TaskGroup() as group:
            if self._store is None:
                self._store = await open_store(self._config)
            store = self._store
            if self.identity is None:
                self.identity = await self._register(store)
            identity = self.identity
            listing = await store.list(PROXIES + identity.id)
            self._check(identity.id, listing.entries[0].value if listing.entries else None)
            maps = await maps_with_first(store, self._snapshot)
            if not self.up:
                log.info("store_read", maps={name: d.epoch for name, d in maps.documents.items()})
            self.up = True
            self._serve(maps.documents)
            self.problem = ""
            group.create_task(self._watch_identity(store, identity.id, listing.revision))
            group.create_task(self._watch_maps(store, maps.revision))
            group.create_task(self._acknowledge(store, identity.id))
            if self._loads is not None:
                group.create_task(self._loads.show(store, identity.id))
            group.create_task(show_presence(store, ALIVE + identity.id, {"place": identity.place}, SHOWN))

    # ── identity ──

    async def _register(self, store: MapStore) -> Identity:
        identity = Identity(
            id=secrets.token_hex(8),
            since=time.time(),
            place=place_of(os.getpid()),
            account=self._config.backend.user,
        )
        key = PROXIES + identity.id
        await settle(store, [Condition(key, ABSENT)], [Put(key, identity.document())], PATIENCE)
        self._told = None
        self._version = ABSENT
        log.info("registered", identity=identity.id)
        return identity

    def _check(self, ident: str, value: Mapping[str, object] | None) -> None:
        if value is None or Identity.read(PROXIES + ident, value).standing is not Standing.ACTIVE:
            raise _EvictedError

    async def _watch_identity(self, store: MapStore, ident: str, revision: int) -> None:
        key = PROXIES + ident
        async with aclosing(store.watch(key, revision)) as watched:
            async for seen in watched:
                for change in seen.changes:
                    if change.key == key:
                        self._check(ident, change.value)

    async def _return(self) -> None:
        """We were shut out: nothing goes on under the old identity, and we come back under a new one."""
        assert self.identity is not None  # it was stored before anybody could shut it out
        log.error("evicted", identity=self.identity.id)
        self.problem = "shut out, because a map was not acknowledged in time: coming back"
        self.acknowledged.clear()
        self._void.append(self.identity.id)
        self.identity = None
        await self._shut()

    async def evicted(self) -> bool:
        """Whether our earlier identities are all evicted, so that the servers have no connection of them: asked in
        place of a proof of our own, which a locked account cannot have. Raises StoreError."""
        if self._store is None:
            return False
        for ident in self._void:
            entry = await self._store.get(PROXIES + ident)
            if entry is not None and Identity.read(entry.key, entry.value).standing is not Standing.EVICTED:
                return False
        return bool(self._void)

    async def _remove(self, store: MapStore, ident: str) -> None:
        """Delete an identity of ours, and its acknowledgement. Raises StoreError."""
        for key in (PROXIES + ident, ACKNOWLEDGEMENTS + ident):
            entry = await store.get(key)
            if entry is not None:
                with contextlib.suppress(StoreConflict, StoreOutcomeUnknown):
                    await store.delete(key, entry.version)

    # ── maps ──

    async def _watch_maps(self, store: MapStore, revision: int) -> None:
        async with aclosing(store.watch(MAPS, revision)) as watched:
            async for seen in watched:
                documents = dict(self.documents)
                for change in seen.changes:
                    if change.value is None:
                        log.error("map_deleted", key=change.key)  # what it said stays in force
                        continue
                    document = MapDocument.read(change.key, change.value)
                    documents[document.keyspace] = document
                self._serve(documents)

    def _serve(self, documents: Documents) -> None:
        """Serve by these maps. Raises ConfigError when that is not possible: they are not acknowledged then."""
        if documents != self.documents or not self._handover.number:
            self._take(documents)
            self.documents = documents

    # ── acknowledgements ──

    async def _acknowledge(self, store: MapStore, ident: str) -> None:
        """Store what has been handed over, at once."""
        while True:
            self._handover.changed.clear()
            epochs, whole = dict(self._handover.epochs), self._handover.whole
            if epochs != self._told:
                await self._store_acknowledgement(store, ident, epochs)
            if whole and not self.acknowledged.is_set():
                for old in self._void:
                    await self._remove(store, old)
                self._void.clear()
                self.acknowledged.set()
            await self._handover.changed.wait()

    async def _store_acknowledgement(self, store: MapStore, ident: str, epochs: dict[str, int]) -> None:
        key = ACKNOWLEDGEMENTS + ident
        if self._version is None:
            entry = await store.get(key)
            self._version = entry.version if entry else ABSENT
        condition, self._version = Condition(key, self._version), None
        value = Acknowledgement(identity=ident, epochs=epochs).document()
        # It says something of this process, which ends by a power cut too; and at a switch writes wait for it.
        self._version = await settle(store, [condition], [Put(key, value)], PATIENCE, lasting=False)
        self._told = epochs
