"""A move as the map store has it, led by one orchestrator at a time.

Workflow and map change together, in one commit that expects the versions which were read last. A leader claims the move
first (R1): from then on whoever led it before finds another generation, and stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shardproxy.errors import MoveError, NotOurs, StoreConflict
from shardproxy.reshard.eviction import gone
from shardproxy.store.interface import ABSENT, Condition, MapStore, Put
from shardproxy.store.settle import settle
from shardproxy.topology import map_document
from shardproxy.topology import workflow as moves
from shardproxy.topology.barrier import Acknowledgement, Identity, Standing, not_passed, returned
from shardproxy.topology.map_document import MapDocument, Move
from shardproxy.topology.map_form import NamedRange
from shardproxy.topology.stages import Stage, Step
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, ALIVE, MAPS, MOVES, PROXIES, move_key
from shardproxy.topology.workflow import Plan, Workflow

PATIENCE = 30.0  # seconds that a change whose answer was lost is asked for again
Clock = Callable[[], float]  # seconds since 1970


async def read_map(store: MapStore, keyspace: str) -> tuple[MapDocument, int]:
    """The map of a keyspace and its version. Raises MoveError when the store has none, StoreError."""
    entry = await store.get(MAPS + keyspace)
    if entry is None:
        raise MoveError(f"the map store has no map of keyspace {keyspace}: start a proxy with this store first")
    return MapDocument.read(entry.key, entry.value), entry.version


async def read_move(store: MapStore, ident: int) -> tuple[Workflow, int]:
    """A move and its version. Raises MoveError, StoreError."""
    entry = await store.get(move_key(ident))
    if entry is None:
        raise MoveError(f"there is no move {ident}; `shardctl rebalance history` lists them")
    return Workflow.read(entry.key, entry.value), entry.version


async def all_moves(store: MapStore) -> list[Workflow]:
    """Every move, under way or ended, the oldest first."""
    found = [Workflow.read(entry.key, entry.value) for entry in (await store.list(MOVES)).entries]
    return sorted(found, key=lambda workflow: workflow.id)


async def begin(store: MapStore, keyspace: str, owner: str, plan: Plan, now: Clock) -> Ledger:
    """Store a new move and the map that has it. Raises MoveError when the map or another move forbids it."""
    while True:
        document, version = await read_map(store, keyspace)
        ident = moves.next_id(await all_moves(store))
        workflow, after = moves.start(document, ident, owner, plan, now())
        conditions = [Condition(move_key(ident), ABSENT), Condition(MAPS + keyspace, version)]
        try:
            stored = await settle(store, conditions, _puts(workflow, after), PATIENCE)
        except StoreConflict:
            continue  # somebody was faster: look again
        return Ledger(store, now, workflow, stored, after, stored)


async def change_without_move(store: MapStore, keyspace: str, plan: WithoutMove) -> None:
    """Give keys that have no shard their first one, let shards without keys go: no row moves. Raises MoveError,
    StoreError."""
    while True:
        document, version = await read_map(store, keyspace)
        after = map_document.without_move(document, plan.ranges, plan.home, plan.lookups, plan.keyless)
        try:
            key = MAPS + keyspace
            await settle(store, [Condition(key, version)], [Put(key, after.document())], PATIENCE)
            return
        except StoreConflict:
            continue


def _puts(workflow: Workflow, document: MapDocument | None) -> list[Put]:
    puts = [Put(move_key(workflow.id), workflow.document())]
    return puts if document is None else [*puts, Put(MAPS + workflow.keyspace, document.document())]


@dataclass(frozen=True)
class WithoutMove:
    """Keys that get their first shard without a move, and the shards that have none; home, lookups: see
    `map_document.begin`."""

    ranges: tuple[NamedRange, ...]
    home: str
    lookups: map_document.Lookups | None
    keyless: tuple[str, ...] | None = None


class Heard:
    """Acknowledgements of one map, as they come. At a switch writes wait for them: to look who is left whenever one has
    come would take as long as it takes them to come."""

    def __init__(self, keyspace: str, epoch: int) -> None:
        self._keyspace = keyspace
        self._epoch = epoch
        self._identities: set[str] = set()
        self._came = asyncio.Event()

    def take(self, acknowledgements: Iterable[Acknowledgement]) -> None:
        self._identities.update(a.identity for a in acknowledgements if a.epochs.get(self._keyspace, 0) >= self._epoch)
        self._came.set()

    async def from_all(self, identities: Iterable[Identity]) -> None:
        """Wait until each of them has acknowledged the map."""
        left = {identity.id for identity in identities}
        while not left <= self._identities:
            self._came.clear()
            await self._came.wait()


class Ledger:
    """What the leader of a move knows and changes. `workflow` and `document` are as of the last read or change."""

    def __init__(
        self, store: MapStore, now: Clock, workflow: Workflow, version: int, document: MapDocument, map_version: int
    ) -> None:
        self.store = store
        self.workflow = workflow
        self.document = document
        self._now = now
        self._version = version
        self._map_version = map_version
        self._lock = asyncio.Lock()

    @classmethod
    async def claim(cls, store: MapStore, ident: int, owner: str, now: Clock) -> Ledger:
        """Become the leader. owner: a name that nobody else ever has. Raises MoveError for a move that has ended."""
        while True:
            workflow, version = await read_move(store, ident)
            claimed = moves.claim(workflow, owner, now())
            try:
                version = await settle(store, [Condition(move_key(ident), version)], _puts(claimed, None), PATIENCE)
            except StoreConflict:
                continue
            document, map_version = await read_map(store, claimed.keyspace)
            return cls(store, now, claimed, version, document, map_version)

    @property
    def stage(self) -> Stage:
        return self.workflow.stage

    @property
    def move(self) -> Move:
        """The move in the map. Raises MoveError when it has left it."""
        if self.document.move is None or self.document.move.id != self.workflow.id:
            raise MoveError(f"the map of keyspace {self.document.keyspace} has not move {self.workflow.id}")
        return self.document.move

    async def refresh(self) -> None:
        """Read both anew: others may have paused the move. Raises NotOurs when another leads it."""
        async with self._lock:
            await self._read()

    async def check(self) -> None:
        """Raises NotOurs when another leads the move (bookkeeping.Ownership)."""
        await self.refresh()

    async def _read(self) -> None:
        workflow, version = await read_move(self.store, self.workflow.id)
        if (workflow.owner, workflow.generation) != (self.workflow.owner, self.workflow.generation):
            raise NotOurs(f"move {workflow.id} is led by {workflow.owner} now (generation {workflow.generation})")
        self.workflow, self._version = workflow, version
        self.document, self._map_version = await read_map(self.store, workflow.keyspace)

    async def proceed(
        self, step: Step, positions: Mapping[str, str] | None = None, what: str = "", lasting: bool = True
    ) -> None:
        """Take a step, in one compare-and-set of workflow and map. lasting: see MapStore.commit. Raises NotOurs,
        MoveError, StoreError."""
        stage = self.stage
        async with self._lock:
            while True:
                after, document = moves.proceed(self.workflow, self.document, step, self._now(), positions, what)
                conditions = [
                    Condition(move_key(after.id), self._version),
                    Condition(MAPS + after.keyspace, self._map_version),
                ]
                try:
                    puts = _puts(after, document)
                    version = await settle(self.store, conditions, puts, PATIENCE, lasting=lasting)
                except StoreConflict:
                    await self._read()
                    if self.stage is not stage:
                        raise MoveError(f"move {after.id} is {self.stage.value} already, not {stage.value}") from None
                    continue
                self.workflow, self.document = after, document
                self._version = self._map_version = version
                return

    async def note(self, **changes: Any) -> None:
        """Change `paused`, `problem` or `figures`. Raises NotOurs, StoreError."""
        async with self._lock:
            while True:
                after = moves.note(self.workflow, **changes)
                condition = Condition(move_key(after.id), self._version)
                try:
                    self._version = await settle(self.store, [condition], _puts(after, None), PATIENCE)
                except StoreConflict:
                    await self._read()
                    continue
                self.workflow = after
                return

    # ── the barrier ──

    async def waited_for(self) -> list[Identity]:
        """Proxies whose acknowledgement of the present map is missing, and that are not evicted (R3)."""
        identities, left = await self._proxies()
        return [identity for identity in identities if identity.id in left]

    async def living(self) -> frozenset[str]:
        """Ids of proxies that have told of late that they live. Only patience may hang on it: a proxy that stands still
        is listed for some seconds more, one that lives may be missing."""
        return frozenset(entry.key.removeprefix(ALIVE) for entry in (await self.store.list(ALIVE)).entries)

    async def returned(self, accounts: Iterable[str]) -> frozenset[str]:
        """Those of some locked accounts whose proxies have come back (barrier.returned)."""
        return returned(accounts, *await self._proxies(), gone)

    async def accounts(self) -> frozenset[str]:
        """Accounts of proxies that are not evicted."""
        identities, _ = await self._proxies()
        return frozenset(i.account for i in identities if i.standing is not Standing.EVICTED)

    async def _proxies(self) -> tuple[list[Identity], tuple[str, ...]]:
        """All identities, and those that have not acknowledged the present map."""
        identities = [Identity.read(e.key, e.value) for e in (await self.store.list(PROXIES)).entries]
        answers = [Acknowledgement.read(e.key, e.value) for e in (await self.store.list(ACKNOWLEDGEMENTS)).entries]
        return identities, not_passed(self.document.keyspace, self.document.epoch, identities, answers)

    @asynccontextmanager
    async def acknowledgements(self) -> AsyncIterator[Heard]:
        """What proxies acknowledge of the present map from now on. Who asks `waited_for` then misses none."""
        heard = Heard(self.document.keyspace, self.document.epoch)
        revision = (await self.store.list(ACKNOWLEDGEMENTS)).revision

        async def watch() -> None:
            async with aclosing(self.store.watch(ACKNOWLEDGEMENTS, revision)) as watched:
                async for seen in watched:
                    heard.take(Acknowledgement.read(c.key, c.value) for c in seen.changes if c.value is not None)

        watching = asyncio.create_task(watch())
        try:
            yield heard
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
