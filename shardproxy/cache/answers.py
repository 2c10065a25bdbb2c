"""Answers of queries, kept as a client gets them. One per worker. The steps are those of docs/cache.md.

An answer is believed together with its guards, which come in the same reply: the live marks of all shards that have its
tables, and the tables' tokens. A table's token is another one after each write to it, and a tombstone for a hold-off.
What guards it goes into its tag before it is read from the primaries: what is written later is another tag.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from shardproxy import logs
from shardproxy.backend.gateway import Gateway
from shardproxy.cache.entries import FILL, TAKE_LEASE, TOMBSTONE, Names, State, all_values, read, value
from shardproxy.cache.looks import Looks
from shardproxy.cache.node import CacheNode
from shardproxy.cache.patterns import CacheSettings, has_table
from shardproxy.errors import BackendError
from shardproxy.protocol.redis import encode
from shardproxy.topology.model import Snapshot
from shardproxy.topology.redis_ring import RedisRing

log = logs.Log("cache")

_GUARDS = 1000

Tables = tuple[tuple[str, str], ...]
Found = tuple[State, bytes, bytes]  # what there is, the answer, and the tag to be believed


class Guards:
    """What the answers from some tables are guarded by, on one node and under one map. words: the keys of their marks
    and tokens; epochs: of the tables' keyspaces."""

    def __init__(self, tables: Tables, node: CacheNode, digest: str, snapshot: Snapshot) -> None:
        self.node = node
        self.snapshot = snapshot
        self.names = Names(node.run, digest)
        self.tokens = [self.names.queried(table) for table in tables]
        self.marks = [
            self.names.mark(shard.name)
            for number, shard in enumerate(snapshot.shards)
            if any(has_table(snapshot, number, table) for table in tables)
        ]
        epochs = {database: snapshot.epochs.get(database, 0) for database, _ in tables}
        self.epochs = b",".join(b"%d" % epoch for epoch in epochs.values())

    def tag(self, marks: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
        """What an answer must have to be believed."""
        return b"%b;%b;%b " % (b",".join(marks), b",".join(tokens), self.epochs)


class AnswerPlace:
    """Where one answer is. words: the command that is asked for each read."""

    __slots__ = ("entry", "guards", "node", "words")

    def __init__(self, guards: Guards, key: bytes) -> None:
        self.guards = guards
        self.node = guards.node
        self.entry = guards.names.answer(key)
        self.words = [b"MGET", self.entry, *guards.marks, *guards.tokens]

    @property
    def known_by(self) -> tuple[Guards, bytes]:
        """The same for all who would believe the same."""
        return self.guards, self.entry

    def found(self, reply: bytes) -> Found | None:
        """What the reply to `words` says; None: nothing can be believed. A table without a token is given one, and is
        as one that was just written."""
        guards = self.guards
        try:
            entry, *rest = all_values(reply, len(self.words) - 1)
        except ValueError:
            return None
        marks, tokens = rest[: len(guards.marks)], rest[len(guards.marks) :]
        live = [mark for mark in marks if mark is not None]
        if len(live) != len(marks):
            return None
        known = [token for token in tokens if token is not None]
        if len(known) != len(tokens):
            self._give_tokens(tokens)
            return State.TOMBSTONE, b"", b""
        if TOMBSTONE in known:
            return State.TOMBSTONE, b"", b""
        tag = guards.tag(live, known)
        state, payload = read(entry, tag)
        return state, payload, tag

    def _give_tokens(self, tokens: Sequence[bytes | None]) -> None:
        """Tokens that nobody has had before, to tables that have none: the hold-off after a write is over, or nobody
        has read them yet."""
        if not self.node.usable or self.node.run != self.guards.names.run:
            return
        for name, token in zip(self.guards.tokens, tokens, strict=True):
            if token is None:
                self.node.send(encode.command([b"SET", name, token_hex(8).encode(), b"NX"]), _unheard)


def _on_its_way(seen: Found | None) -> bool:
    return seen is not None and seen[0] is State.LEASE


def _unheard(reply: bytes) -> None:
    """Whether it was done, the next read sees."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to fill a place, under a tag."""

    place: AnswerPlace
    token: bytes
    tag: bytes


class Answers:
    """hits, counts: what became of queries that may be kept; counts: of those that were no hits, by outcome."""

    def __init__(self, settings: CacheSettings, nodes: Sequence[CacheNode], ring: RedisRing, gateway: Gateway) -> None:
        self.settings = settings
        self.gateway = gateway
        self.counts: Counter[str] = Counter()
        self.hits = 0
        self._nodes = nodes
        self._ring = ring
        self._digest = settings.digest
        self._guards: dict[tuple[Tables, CacheNode], Guards] = {}
        self._looks: Looks[Found | None] = Looks(self.later, _on_its_way)
        self._tasks: set[asyncio.Task[None]] = set()
        self._owner = token_hex(8)
        self._leases = 0

    def place(self, key: bytes, tables: Tables) -> AnswerPlace | None:
        """The place of the answer with this key; None when its node cannot be asked."""
        node = self._nodes[self._ring.node_of(key)]
        if not node.usable:
            return None
        guards = self._guards.get((tables, node))
        if guards is None or guards.snapshot is not self.gateway.snapshot or guards.names.run != node.run:
            if len(self._guards) >= _GUARDS:
                self._guards.clear()
            guards = self._guards[tables, node] = Guards(tables, node, self._digest, self.gateway.snapshot)
        return AnswerPlace(guards, key)

    def ask(self, place: AnswerPlace, told: Callable[[Found | None], None]) -> None:
        """What there is now."""
        place.node.send(encode.command(place.words), lambda reply: told(place.found(reply)))

    async def wait(self, place: AnswerPlace, found: Found) -> bytes | Lease | None:
        """For an answer that is not there: the one that somebody else brings, or a lease to bring it, or None: it is
        read and not kept."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.wait
        waited = False
        try:
            while found[0] is not State.TOMBSTONE and loop.time() < deadline:
                if found[0] is State.NOTHING:
                    lease = await self._take(place, found[2])
                    if lease is not None:
                        self.counts["miss"] += 1
                        return lease
                waited = True
                seen = await self._looks.next(place.known_by, lambda: self._look(place), deadline)
                if seen is None:
                    raise BackendError("the cache cannot be believed any more")
                if seen[0] is State.VALUE:
                    self.counts["coalesced"] += 1
                    return seen[1]
                found = seen
        except BackendError:
            self.counts["bypassed"] += 1
            return None
        self.counts["waited in vain" if waited else "held off"] += 1
        return None

    async def _look(self, place: AnswerPlace) -> Found | None:
        return place.found(await place.node.ask(place.words))

    async def _take(self, place: AnswerPlace, tag: bytes) -> Lease | None:
        self._leases += 1
        token = b"%b-%d" % (self._owner.encode(), self._leases)
        words = [token, b"%d" % round(self.settings.lease * 1000), tag]
        taken = await place.node.run_script(TAKE_LEASE, [place.entry], words)
        return Lease(place, token, tag) if taken else None

    def fill(self, lease: Lease, answer: bytes, lives: int) -> None:
        """Put what was read under a lease there, for so many milliseconds. Not when the map is another one by now."""
        if lease.place.guards.snapshot is not self.gateway.snapshot:
            self.give_back(lease)
        else:
            self.later(self._fill(lease, [lease.token, value(lease.tag, answer), b"%d" % lives]))

    def give_back(self, lease: Lease) -> None:
        """Nothing was read that could be kept: who waits does not wait for it."""
        self.later(self._fill(lease, [lease.token, b"", b"0"]))

    async def _fill(self, lease: Lease, words: Sequence[bytes]) -> None:
        place = lease.place
        try:
            if not await place.node.run_script(FILL, [place.entry], words):
                self.counts["fill refused"] += 1
        except BackendError as error:
            self.counts["fill failed"] += 1
            log.debug("cache_fill_failed", reason=str(error))
        self._looks.hurry(place.known_by)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something as a task."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.error("cache_defect", error)

    def close(self) -> None:
        """For good."""
        for task in list(self._tasks):
            task.cancel()
