"""Leading a move as a command does: the store, the servers and the throttle at hand, and somebody who watches.

Whoever begins to lead a move takes it from whoever led it before (R1). What others want of a move that is led, they
write into its workflow: a pause, and the figure `rate`; the leader looks every second.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shardproxy.backend.catalog import load_registered
from shardproxy.backend.control import Credentials
from shardproxy.backend.table_config import as_tables
from shardproxy.config import Config
from shardproxy.errors import ShardproxyError
from shardproxy.reshard.eviction import Evictor
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.link import LinkLogin
from shardproxy.reshard.orchestrator import Faults, Orchestrator, Settings
from shardproxy.reshard.runner import broken
from shardproxy.reshard.throttle import Throttle, ThrottleLimits
from shardproxy.store.interface import MapStore
from shardproxy.store.opening import open_store
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot, with_tables
from shardproxy.topology.load import Load
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot
from shardproxy.topology.stored import LOADS, MAPS

_EVERY = 1.0  # seconds between two looks at what the operator wants, and two notes of figures


def new_owner() -> str:
    """A name for a run of an orchestrator, which nobody else ever has."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


async def stored_maps(store: MapStore) -> dict[str, MapDocument]:
    """The maps of the store, by keyspace."""
    entries = (await store.list(MAPS)).entries
    return {entry.key.removeprefix(MAPS): MapDocument.read(entry.key, entry.value) for entry in entries}


async def stored_maps_of(config: Config) -> dict[str, MapDocument]:
    """The maps of the file's store; none where the embedded store has no file yet. Raises StoreError."""
    if config.store.kind == "embedded" and not config.resolve(config.store.path).exists():
        return {}
    store = await open_store(config)
    try:
        return await stored_maps(store)
    finally:
        await store.close()


async def stored_loads_of(config: Config, keyspace: str) -> list[Load]:
    """What the proxies that live have measured of a keyspace. Raises StoreError."""
    if config.store.kind == "embedded" and not config.resolve(config.store.path).exists():
        return []
    store = await open_store(config)
    try:
        entries = (await store.list(LOADS)).entries
    finally:
        await store.close()
    return [
        Load.read(entry.key, entry.value)
        for entry in entries
        if entry.key.removeprefix(LOADS).partition("/")[2] == keyspace
    ]


async def whole_snapshot(config: Config, documents: Mapping[str, MapDocument]) -> Snapshot:
    """The file's servers and tables, those that were registered while proxies ran, and the store's maps."""
    snapshot = build_snapshot(config)
    there = with_stored(snapshot, documents)  # a shard that has left knows no table that came later
    rows = await load_registered(there, Credentials.of_moves(config), config.backend.connect_timeout)
    registered, _ = as_tables(rows, [shard.name for shard in snapshot.shards])
    snapshot, _ = with_tables(snapshot, registered)
    return with_stored(snapshot, documents)


@dataclass(frozen=True)
class Wishes:
    """How a move is to be led. hold: seconds for which a switch may hold writes; verify: compare rows before it;
    despite: delete old rows although somebody has written them directly."""

    limits: ThrottleLimits = field(default_factory=ThrottleLimits)
    hold: float = 1.0
    verify: bool = True
    despite: bool = False
    faults: Faults | None = None


@asynccontextmanager
async def leading(
    config: Config, lead: Callable[[MapStore], Awaitable[Ledger]], wishes: Wishes | None = None
) -> AsyncIterator[Orchestrator]:
    """An orchestrator of a move; its streams end with the block, the move stays where it is. lead: begins or claims it.

    Raises ShardproxyError.
    """
    wishes = wishes or Wishes()
    store = await open_store(config)
    try:
        snapshot = await whole_snapshot(config, await stored_maps(store))
        credentials = Credentials.of_moves(config)
        login = LinkLogin(credentials, config.backend.connect_timeout)
        ledger = await lead(store)
        throttle = Throttle(wishes.limits)
        evictor = Evictor(store, [shard.primary for shard in snapshot.shards], credentials)
        settings = Settings(hold=wishes.hold, bypass=config.rebalance.bypass, despite=wishes.despite)
        orchestrator = Orchestrator(ledger, snapshot, login, evictor, throttle, settings, wishes.verify, wishes.faults)
        servers = [server for shard in snapshot.shards for server in shard.servers]
        primaries = [shard.primary for shard in snapshot.shards if shard.name in ledger.document.shards]
        beside = [
            *([asyncio.create_task(throttle.be_gentle(primaries, login))] if wishes.limits.gentle else []),
            asyncio.create_task(throttle.watch(servers, login)),
            asyncio.create_task(_heed(orchestrator, throttle)),
        ]
        try:
            yield orchestrator
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await orchestrator.close()
    finally:
        await store.close()


async def _heed(orchestrator: Orchestrator, throttle: Throttle) -> None:
    """Do what the operator has written into the workflow, and write there how far the move is."""
    ledger = orchestrator.ledger
    said = ""
    while True:
        await asyncio.sleep(_EVERY)
        try:
            await ledger.refresh()
            workflow = ledger.workflow
            throttle.paused = workflow.paused
            rate = workflow.figures.get("rate")
            if isinstance(rate, int | float):
                throttle.limits = replace(throttle.limits, rate=float(rate))
            figures = figures_of(orchestrator)
            if figures and any(workflow.figures.get(name) != value for name, value in figures.items()):
                await ledger.note(figures={**workflow.figures, **figures, "seen": time.time()})
            why = broken(orchestrator.streams)
            if why != ledger.workflow.problem and ledger.workflow.problem in ("", said):
                await ledger.note(problem=why)
                said = why
        except ShardproxyError:
            continue  # who works at the move meets it too, and says so


def figures_of(orchestrator: Orchestrator) -> dict[str, int]:
    """Rows copied and transactions applied by the streams that run."""
    streams = orchestrator.streams
    if not streams:
        return {}
    copied = sum(stream.copied for stream in streams)
    return {"rows": copied, "applied": sum(stream.applied for stream in streams)} if copied else {}
