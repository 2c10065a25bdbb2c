"""The load that this proxy's workers sample, kept by keyspace and shown in the map store for `rebalance --by-load`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from shardproxy.errors import StoreError
from shardproxy.store.interface import ABSENT, MapStore
from shardproxy.topology.load import ENOUGH, Measured
from shardproxy.topology.sampler import Batch
from shardproxy.topology.stored import LOADS

LOOK = 1.0  # seconds between two looks whether there is something to store
STORE_EVERY = 60.0  # seconds; sooner the first time, and when enough has been measured
LEASE = 180  # seconds after which the load of a proxy that has vanished does not count


@dataclass(slots=True)
class _Shown:
    version: int
    at: float
    samples: int


class LoadSamples:
    """Bounded: see topology.load."""

    def __init__(self) -> None:
        self._samples = 0  # heard of since `taken`
        self._measured: dict[str, Measured] = {}

    def hear(self, batches: Mapping[str, Batch]) -> None:
        """Take what a worker sampled, by keyspace."""
        now = monotonic()
        for keyspace, batch in batches.items():
            known = self._measured.get(keyspace)
            if known is None or known.kind != batch.kind:  # another map: its points are no points of the old one
                known = self._measured[keyspace] = Measured(batch.kind, now)
            known.add(batch, now)
            self._samples += len(batch.points)

    def taken(self) -> int:
        """How many samples came since this was asked last: for counting them."""
        found, self._samples = self._samples, 0
        return found

    async def show(self, store: MapStore, identity: str) -> None:
        """Keep what was measured in the store, until cancelled. What the store cannot do now is tried again later."""
        lease: str | None = None
        shown: dict[str, _Shown] = {}
        renewed = monotonic()
        try:
            while True:
                try:
                    due = self._due(shown)
                    if due and lease is None:
                        lease, renewed = await store.grant(LEASE), monotonic()
                    elif lease is not None and monotonic() - renewed > LEASE / 4:
                        await store.renew(lease)
                        renewed = monotonic()
                    for keyspace in due:
                        await self._store(store, identity, keyspace, shown, lease)
                except StoreError:  # also: the lease has expired
                    lease, shown = None, {}
                await asyncio.sleep(LOOK)
        finally:
            if lease is not None:
                with contextlib.suppress(StoreError):
                    await store.revoke(lease)

    def _due(self, shown: Mapping[str, _Shown]) -> list[str]:
        now = monotonic()
        found = []
        for keyspace, measured in self._measured.items():
            last = shown.get(keyspace)
            if last is None or now - last.at >= STORE_EVERY or last.samples < ENOUGH <= measured.samples:
                found.append(keyspace)
        return found

    async def _store(
        self, store: MapStore, identity: str, keyspace: str, shown: dict[str, _Shown], lease: str | None
    ) -> None:
        key = f"{LOADS}{identity}/{keyspace}"
        now = monotonic()
        load = self._measured[keyspace].load(now)
        last = shown.get(keyspace)
        if last is None:
            old = await store.get(key)
            version = old.version if old else ABSENT
        else:
            version = last.version
        version = await store.put(key, load.document(), version, lease)
        shown[keyspace] = _Shown(version, now, load.samples)
