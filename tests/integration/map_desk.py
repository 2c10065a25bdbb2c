"""The map store as an orchestrator's: maps that a test writes there, and what proxies say of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from shardproxy.config import load
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.store.interface import MapStore
from shardproxy.store.maps import read_maps
from shardproxy.store.opening import open_store
from shardproxy.topology.barrier import Acknowledgement, Identity, Standing
from shardproxy.topology.map_document import MapDocument, Move, Stream, advance, begin
from shardproxy.topology.map_form import KeySet
from shardproxy.topology.stages import Stage, Step
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, MAPS, PROXIES
from tests.proxy import eventually

KEYS = KeySet.model_validate({"ranges": ((500, 1000),)})
_Result = TypeVar("_Result")


class Desk:
    """The store that proxies of a test use, and what an orchestrator would write there."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def on(self, work: Callable[[MapStore], Awaitable[_Result]]) -> _Result:
        async def run() -> _Result:
            store = await open_store(load(self.config, proxy_environment()))
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def map(self) -> MapDocument:
        return self.on(read_maps).documents["main"]

    def write(self, change: Callable[[MapDocument], MapDocument]) -> int:
        """Write the next map of `main`; its epoch."""

        async def work(store: MapStore) -> int:
            maps = await read_maps(store)
            after = change(maps.documents["main"])
            await store.put(MAPS + "main", after.document(), maps.versions["main"])
            return after.epoch

        return self.on(work)

    def begin(self) -> int:
        stream = Stream(source="shard1", target="shard2", keys=KEYS)
        return self.write(lambda d: begin(d, Move(id=d.epoch, stage=Stage.PREPARED, streams=(stream,))))

    def step(self, step: Step = Step.NEXT, **positions: str) -> int:
        return self.write(lambda d: advance(d, step, positions or None))

    def identities(self) -> list[Identity]:
        async def work(store: MapStore) -> list[Identity]:
            return [Identity.read(e.key, e.value) for e in (await store.list(PROXIES)).entries]

        return self.on(work)

    def acknowledged(self) -> dict[str, int]:
        """Identity → epoch of `main`."""

        async def work(store: MapStore) -> dict[str, int]:
            entries = (await store.list(ACKNOWLEDGEMENTS)).entries
            return {a.identity: a.epochs["main"] for a in (Acknowledgement.read(e.key, e.value) for e in entries)}

        return self.on(work)

    def all_have(self, epoch: int, proxies: int, seconds: float = 10.0) -> None:
        def reached() -> bool:
            found = self.acknowledged()
            return len(found) == proxies and all(e >= epoch for e in found.values())

        eventually(reached, f"{proxies} proxies have acknowledged epoch {epoch}", seconds)

    def stand(self, ident: str, standing: Standing) -> None:
        async def work(store: MapStore) -> None:
            entry = await store.get(PROXIES + ident)
            assert entry is not None
            value = Identity.read(entry.key, entry.value).model_copy(update={"standing": standing})
            await store.put(entry.key, value.document(), entry.version)

        self.on(work)

    def there(self, prefix: str) -> list[str]:
        async def work(store: MapStore) -> list[str]:
            return [entry.key for entry in (await store.list(prefix)).entries]

        return self.on(work)
